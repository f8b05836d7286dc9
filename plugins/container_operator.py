"""The operator of every task that runs in a container: `DockerOperator` that survives its own death."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import docker
import docker.errors
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.log import mask_secret

from include import container_reaper, containers
from include.container_results import RESULT_PATH, ContainerFailure
from include.containers import STOP_GRACE_SECONDS, DockerUnavailable, Pool, TaskContainer, TaskInstance
from include.settings import Settings, SettingsError, get_settings


class ContainerOperator(DockerOperator):
    """Runs one of our images and returns the JSON object that it leaves in `/results/result.json`.

    A container whose task process died is found again by its labels: it goes on, or its result is taken. At most one
    container exists per task instance, and none is left at the end, whatever the end was. A failure's message is
    the container's own sentence; exit codes decide whether Airflow retries (docs/contracts.md).

    :param project: name of the project, for labels and the container's name
    :param image: ``trainer:<variant>`` or ``api``; resolved at execute from the images that `make up` built
    :param command: the command and its arguments (templated)
    :param train_bucket: the project's bucket, without the deployment's prefix
    :param environment: further variables of the container (templated); no secrets here
    :param gpu: whether the container is given all GPUs of the host
    :param memory_bytes: memory limit; there is no swap
    """

    # A command's argument that ends in ".sh" is not a file to render.
    template_ext: Sequence[str] = ()
    ui_color = "#d9ecf7"

    def __init__(
        self,
        *,
        project: str,
        image: str,
        command: list[str],
        train_bucket: str,
        memory_bytes: int,
        environment: Mapping[str, str] | None = None,
        gpu: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image=image,
            command=command,
            environment=dict(environment or {}),
            mount_tmp_dir=False,
            auto_remove="force",
            **kwargs,
        )
        self.project = project
        self.train_bucket = train_bucket
        self.gpu = gpu
        self.memory_bytes = memory_bytes
        self._container_id: str | None = None
        self._instance: TaskInstance | None = None
        self._killed = False

    def execute(self, context: Context) -> Any:
        """Run the container to its end, or go on with the one that is there; returns its result."""
        try:
            settings = get_settings()
            client = self._connect(settings)
            spec = self._spec(context, settings, client)
            result = self._run(client, spec)
            self.note(result)
            return result
        except ContainerFailure as failure:
            self.note(failure.result)
            if self._killed:
                self.log.info("The task was killed, and so its container was stopped and removed")
            raise (AirflowException if failure.retryable else AirflowFailException)(str(failure)) from failure
        except SettingsError as error:
            raise AirflowFailException(str(error)) from error
        except DockerUnavailable as error:
            raise AirflowException(str(error)) from error
        except docker.errors.APIError as error:
            raise AirflowException(f"Docker refused a call for {self.task_id}: {error.explanation}") from error

    def note(self, result: Mapping[str, Any]) -> None:
        """Told what the container left, also where it failed; what that is good for, a subclass knows."""

    def on_kill(self) -> None:
        """Have the container stopped and removed if the task was given up, by a process that no SIGKILL here reaches.

        A restart of Airflow gives nothing up: the container goes on, and the next attempt with it.
        """
        # Called from the handler of SIGTERM, maybe in the middle of a log line, whose lock is held: no logging here.
        self._killed = True
        if self._container_id is not None and self._instance is not None:
            container_reaper.spawn(self._container_id, self._instance, STOP_GRACE_SECONDS)

    def _run(self, client: docker.APIClient, spec: TaskContainer) -> dict[str, Any]:
        def on_container(container_id: str) -> None:
            self._container_id = container_id
            if self._killed:
                # The signal came before there was a container to stop.
                containers.remove(client, container_id)
                raise ContainerFailure("interrupted", f"{spec.name} was not started: the task was killed")

        try:
            result = containers.run(client, spec, lambda line: self.log.info("%s", line), on_container)
        except (ContainerFailure, DockerUnavailable):
            self._container_id = None
            raise
        except BaseException as error:
            if isinstance(error, docker.errors.APIError) and error.is_server_error():
                # The engine's own trouble: the container goes on, and the next attempt finds it and its result.
                self._container_id = None
                raise
            # A timeout of Airflow's, or a bug of ours: nobody will come back for this container.
            self._container_id = None
            containers.stop_and_remove(client, spec.name, STOP_GRACE_SECONDS)
            raise
        self._container_id = None
        return result

    def _connect(self, settings: Settings) -> docker.APIClient:
        self.docker_url = settings.docker_url
        try:
            return self.cli
        except (AirflowException, docker.errors.DockerException) as error:
            raise DockerUnavailable(f"at {settings.docker_url}", error) from error

    def _spec(self, context: Context, settings: Settings, client: docker.APIClient) -> TaskContainer:
        ti = context["ti"]
        instance = TaskInstance(
            ti.dag_id, ti.run_id, ti.task_id, ti.map_index if ti.map_index is not None else -1, ti.try_number
        )
        self._instance = instance
        image_id = containers.image_id(client, self._tag(settings))
        return TaskContainer(
            instance=instance,
            project=self.project,
            image=image_id,
            command=tuple(map(str, self.command or ())),
            network=settings.network,
            memory_bytes=self.memory_bytes,
            gpu=self.gpu,
            pool=self._places(settings),
            environment=self._environment(settings, instance, image_id)
            | {key: "" if value is None else str(value) for key, value in self.environment.items()},
            secrets=self._secrets(settings),
        )

    def _places(self, settings: Settings) -> Pool | None:
        """The pool whose slots hold for containers, those of dead tasks included; None: Airflow's count is enough."""
        return None

    def _tag(self, settings: Settings) -> str:
        kind, _, variant = self.image.partition(":")
        return settings.api_image() if kind == "api" else settings.trainer_image(variant)

    def _environment(self, settings: Settings, instance: TaskInstance, image_id: str) -> dict[str, str]:
        return {
            "PROJECT": self.project,
            "RESULT_PATH": RESULT_PATH,
            "S3_ENDPOINT_URL": settings.s3_endpoint_url,
            "AWS_REGION": settings.s3_region,
            "TRAIN_BUCKET": settings.bucket(self.train_bucket),
            "AIRLOCK_BUCKET": settings.records_bucket,
            "DVC_BUCKET": settings.dvc_bucket,
            "MLFLOW_TRACKING_URI": settings.mlflow_url,
            "AIRFLOW_DAG_ID": instance.dag_id,
            "AIRFLOW_RUN_ID": instance.run_id,
            "AIRFLOW_TASK_ID": instance.task_id,
            "AIRFLOW_TRY_NUMBER": str(instance.try_number),
            "IMAGE_ID": image_id,
            "CODE_COMMIT": settings.code_commit,
            "CACHE_LIMIT_BYTES": "" if settings.cache_limit is None else str(settings.cache_limit),
        }

    def _secrets(self, settings: Settings) -> dict[str, str]:
        keys = settings.identity("trainer")
        mask_secret(keys.secret_access_key)
        return {"AWS_ACCESS_KEY_ID": keys.access_key_id, "AWS_SECRET_ACCESS_KEY": keys.secret_access_key}
