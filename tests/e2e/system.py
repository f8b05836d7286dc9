"""The running system, as its users reach it: Airflow's API, the bucket, MLflow, Docker, the front door."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import boto3
import httpx
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
# What an error says where S3 is away.
S3_AWAY = "is the S3 server up? try again when it is"
POLL_SECONDS = 0.5
T = TypeVar("T")


def await_(what: str, probe: Callable[[], T | None], seconds: float) -> T:
    """The first value of `probe` that is not None or False. Fails with `what` when the deadline passes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := probe():
            return value
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def env_file(name: str) -> dict[str, str]:
    """The content of .env, or of another file of that form."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def images() -> dict[str, str]:
    """The tags of the images that make built, by their names in .airlock/images.env: `TRAINER_DEFAULT`, `API`, …"""
    found = env_file(".airlock/images.env").items()
    return {name.removeprefix("AIRLOCK_IMAGE_"): tag for name, tag in found if name.startswith("AIRLOCK_IMAGE_")}


def make(*arguments: str, seconds: int = 1500, **environment: str) -> str:
    """Runs make as a user would and returns what it printed. Fails with its output where make fails."""
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, f"`{' '.join(command)}` ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def docker(*arguments: str) -> str:
    """Runs docker and returns what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


Event = dict[str, Any]


@contextmanager
def container_events(*filters: str) -> Iterator[Callable[[], list[Event]]]:
    """What the engine tells of containers while this lasts; asked for later, it remembers a few seconds only."""
    command = ["docker", "events", "--format={{json .}}", *(f"--filter={one}" for one in ("type=container", *filters))]
    with tempfile.TemporaryFile("w+") as told, subprocess.Popen(command, stdout=told) as listening:

        def events() -> list[Event]:
            told.seek(0)
            return [json.loads(line) for line in told.read().splitlines()]

        try:
            yield events
        finally:
            listening.terminate()


def compose(*arguments: str) -> str:
    """Runs docker compose on this deployment, as docs/operating.md does."""
    done = subprocess.run(
        [ROOT / "scripts" / "compose", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def alerts() -> str:
    """The open incidents, as `make alerts` shows them."""
    return make("alerts")


def our_containers() -> list[str]:
    """Every container of this deployment, its services', its tasks' and its APIs', running or not."""
    ours = ("label=com.docker.compose.project=airlock", "label=airlock.managed=true")
    return [name for label in ours for name in docker("ps", "--all", "--quiet", "--filter", label).split()]


@dataclass(frozen=True)
class Run:
    """One DAG run, as Airflow's API tells it."""

    dag_id: str
    run_id: str
    state: str
    partition_key: str | None


class System:
    """Everything up, behind its published addresses."""

    def __init__(self) -> None:
        self.settings = env_file(".env")
        host = "127.0.0.1"
        self.front = f"http://{host}:{self.settings['FRONT_PORT']}"
        self.airflow_url = f"http://{host}:{self.settings['AIRFLOW_PORT']}"
        self.mlflow_url = f"http://{host}:{self.settings['MLFLOW_PORT']}"
        self.http = httpx.Client(timeout=30)
        self.s3 = boto3.client(
            "s3",
            endpoint_url=f"http://{host}:{self.settings['S3_PORT']}",
            aws_access_key_id=self.settings["S3_ADMIN_ACCESS_KEY_ID"],
            aws_secret_access_key=self.settings["S3_ADMIN_SECRET_ACCESS_KEY"],
            region_name=self.settings["S3_REGION"],
            config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 5}),
        )
        self._token = ""

    # Airflow

    def login(self) -> str:
        """A fresh token for Airflow's API."""
        body = {"username": "admin", "password": self.settings["AIRFLOW_ADMIN_PASSWORD"]}
        answer = self.http.post(f"{self.airflow_url}/auth/token", json=body)
        answer.raise_for_status()
        self._token = answer.json()["access_token"]
        return self._token

    def airflow(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """One call of Airflow's API."""
        headers = {"Authorization": f"Bearer {self._token or self.login()}"}
        return self.http.request(method, f"{self.airflow_url}/api/v2{path}", json=body, headers=headers)

    def get(self, path: str) -> Any:
        """The JSON of a GET. Fails where Airflow refuses."""
        answer = self.airflow("GET", path)
        assert answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    def runs(self, dag_id: str) -> list[Run]:
        """A DAG's runs, the newest first; none where Airflow does not know the DAG yet."""
        answer = self.airflow("GET", f"/dags/{dag_id}/dagRuns?order_by=-run_after&limit=50")
        if answer.status_code == 404:
            return []
        return [
            Run(dag_id, row["dag_run_id"], row["state"], row.get("partition_key")) for row in answer.json()["dag_runs"]
        ]

    def run(self, dag_id: str, run_id: str) -> Run:
        """One run as it is now."""
        return next(run for run in self.runs(dag_id) if run.run_id == run_id)

    def trigger(self, project: str, partition_key: str | None = None, **conf: Any) -> httpx.Response:
        """Triggers the project's retrain, as the form does."""
        body = {"logical_date": None, "partition_key": partition_key, "conf": conf}
        return self.airflow("POST", f"/dags/{project}__retrain/dagRuns", body)

    def start(self, dag_id: str, **conf: Any) -> Run:
        """Triggers one of the DAGs that are there once for all projects, as its form does."""
        answer = self.airflow("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        assert answer.status_code == 200, answer.text
        return self.run(dag_id, answer.json()["dag_run_id"])

    def await_end(self, run: Run, seconds: float = 600) -> Run:
        """Waits until a run has ended."""

        def ended() -> Run | None:
            now = self.run(run.dag_id, run.run_id)
            return now if now.state in {"success", "failed"} else None

        return await_(f"the end of {run.dag_id} {run.run_id}", ended, seconds)

    def give_up(self, run: Run) -> Run:
        """Ends a run as a person does, by marking it failed; of some, only the beginning counts."""
        path = f"/dags/{run.dag_id}/dagRuns/{_quoted(run.run_id)}"
        for _ in range(5):
            answer = self.airflow("PATCH", path, {"state": "failed"})
            # A deadlock: the scheduler locks the run and then its tasks, this call the tasks and then the run. Postgres
            # ends one of the two; a person presses again.
            if answer.status_code != 500:
                break
        assert answer.status_code == 200, answer.text + compose("logs", "--tail", "60", "airflow-api-server")
        return self.await_end(run)

    def open_backfills(self, dag_id: str) -> list[int]:
        """The ids of a DAG's backfills that go on."""
        found = self.get(f"/backfills?dag_id={dag_id}")["backfills"]
        return [one["id"] for one in found if one["completed_at"] is None]

    def cancel_backfill(self, dag_id: str) -> None:
        """Ends the DAG's only backfill as a person does: what waits is marked failed, what runs goes on."""
        (backfill,) = self.open_backfills(dag_id)
        answer = self.airflow("PUT", f"/backfills/{backfill}/cancel")
        assert answer.status_code == 200, answer.text

    def await_task(self, run: Run, task_id: str, *states: str, seconds: float = 600) -> None:
        """Waits until a task of a run is in one of these states."""
        await_(f"{task_id} {states}", lambda: self.tasks(run)[task_id] in states, seconds)

    def tasks(self, run: Run) -> dict[str, str | None]:
        """The states of a run's tasks."""
        rows = self.get(f"/dags/{run.dag_id}/dagRuns/{_quoted(run.run_id)}/taskInstances")["task_instances"]
        return {row["task_id"]: row["state"] for row in rows}

    def attempts(self, run: Run, task_id: str) -> int:
        """How often a task of a run was tried."""
        return int(self._instance(run, task_id)["try_number"])

    def instance_id(self, run: Run, task_id: str) -> str:
        """Airflow's id of a task's present attempt; its process is named after it."""
        return str(self._instance(run, task_id)["id"])

    def _instance(self, run: Run, task_id: str) -> dict[str, Any]:
        row: dict[str, Any] = self.get(f"/dags/{run.dag_id}/dagRuns/{_quoted(run.run_id)}/taskInstances/{task_id}")
        return row

    def clear(self, run: Run, *task_ids: str) -> None:
        """Has these tasks of a run done again, no others."""
        body = {"dry_run": False, "dag_run_id": run.run_id, "task_ids": task_ids, "only_failed": False}
        answer = self.airflow("POST", f"/dags/{run.dag_id}/clearTaskInstances", body)
        assert answer.status_code == 200, answer.text

    def set_slots(self, pool: str, slots: int) -> None:
        """How many tasks of a pool may run at a time."""
        answer = self.airflow(
            "PATCH", f"/pools/{pool}?update_mask=slots", {"pool": pool, "slots": slots, "include_deferred": False}
        )
        assert answer.status_code == 200, answer.text

    def xcom(self, run: Run, task_id: str, key: str = "return_value") -> Any:
        """An XCom's value; None where there is none."""
        path = f"/dags/{run.dag_id}/dagRuns/{_quoted(run.run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self.airflow("GET", path + "?deserialize=true")
        return answer.json()["value"] if answer.status_code == 200 else None

    def links(self, run: Run, task_id: str) -> dict[str, str]:
        """The addresses that a task leads to, by the link's name."""
        found = self.get(f"/dags/{run.dag_id}/dagRuns/{_quoted(run.run_id)}/taskInstances/{task_id}/links")
        return {name: url for name, url in found["extra_links"].items() if url}

    def log(self, run: Run, task_id: str, attempt: int = 1) -> str:
        """A task's log as text."""
        path = f"/dags/{run.dag_id}/dagRuns/{_quoted(run.run_id)}/taskInstances/{task_id}/logs/{attempt}"
        return json.dumps(self.get(path))

    def let_through(self, run: Run, task_id: str, pool: str) -> None:
        """Lets one task of a held pool run to its good end, and none after it."""
        self.await_task(run, task_id, "scheduled")
        self.set_slots(pool, 1)
        self.await_task(run, task_id, "queued", "running", "success")
        self.set_slots(pool, 0)
        self.await_task(run, task_id, "success")

    @contextmanager
    def held(self, pool: str) -> Iterator[None]:
        """No task of a pool starts meanwhile, unless its slots are set again."""
        self.set_slots(pool, 0)
        try:
            yield
        finally:
            self.set_slots(pool, 1)

    # MLflow

    def mlflow(self, path: str, **params: Any) -> Any:
        """A GET of MLflow's REST API."""
        answer = self.http.get(f"{self.mlflow_url}/api/2.0/mlflow/{path}", params=params)
        answer.raise_for_status()
        return answer.json()

    def mlflow_runs(self, run: Run) -> list[dict[str, Any]]:
        """The MLflow runs that an Airflow run made; none while the project has no experiment yet."""
        project = run.dag_id.removesuffix("__retrain")
        experiments = self.mlflow("experiments/search", max_results=1000)["experiments"]
        body = {
            "experiment_ids": [row["experiment_id"] for row in experiments if row["name"] == project],
            "filter": f"tags.airflow_run_id = '{run.run_id}'",
        }
        if not body["experiment_ids"]:
            return []
        answer = self.http.post(f"{self.mlflow_url}/api/2.0/mlflow/runs/search", json=body)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json().get("runs", [])
        return found

    def mlflow_run(self, run_id: str) -> dict[str, Any]:
        """`{"status", "tags": {...}, "params": {...}, "metrics": {...}}` of an MLflow run."""
        run = self.mlflow("runs/get", run_id=run_id)["run"]
        return {
            "status": run["info"]["status"],
            **{
                kind: {row["key"]: row["value"] for row in run["data"].get(kind, [])}
                for kind in ("tags", "params", "metrics")
            },
        }

    def champion(self, project: str) -> str | None:
        """The run id behind the alias `champion`; None where no model has it yet."""
        where = {"name": project, "alias": "champion"}
        answer = self.http.get(f"{self.mlflow_url}/api/2.0/mlflow/registered-models/alias", params=where)
        return str(answer.json()["model_version"]["run_id"]) if answer.is_success else None

    # S3, front door, Docker

    def bucket(self, name: str) -> str:
        """A bucket's full name."""
        return self.settings["S3_BUCKET_PREFIX"] + name

    def read(self, bucket: str, key: str) -> bytes:
        """An object's content."""
        body: bytes = self.s3.get_object(Bucket=self.bucket(bucket), Key=key)["Body"].read()
        return body

    def metadata(self, project: str) -> dict[str, Any]:
        """What serves, in its own words, but since when: that is each replica's own."""
        answer = self.http.get(f"{self.front}/{project}/metadata")
        assert answer.status_code == 200, f"/{project}/metadata: {answer.status_code} {answer.text}"
        data: dict[str, Any] = answer.json()
        return {**data, "served_since": None}

    def predict(self, project: str, picture: bytes) -> httpx.Response:
        """One prediction through the front door."""
        return self.http.post(f"{self.front}/{project}/predict", content=picture, headers={"Content-Type": "image/png"})

    @staticmethod
    def container_of(service: str) -> str:
        """The container of one of the system's services."""
        labels = (f"com.docker.compose.service={service}", "com.docker.compose.project=airlock")
        return docker("ps", "--all", "--quiet", *(f"--filter=label={label}" for label in labels))

    @staticmethod
    def crash(container: str) -> None:
        """Kills every process of a container that runs, as if its host had done it; the engine starts it anew."""
        # Docker's own kill counts as a person's stop, after which nothing is started again. The init is spared, and
        # ends with its child.
        subprocess.run(["docker", "exec", container, "sh", "-c", "kill -9 -1"], capture_output=True, timeout=60)

    def kill(self, service: str) -> None:
        """Crashes a service, and waits until the engine has started it anew."""
        container = self.container_of(service)
        began = docker("inspect", "--format", "{{.State.StartedAt}}", container)
        self.crash(container)
        await_(
            f"{service} to be started anew",
            lambda: began != docker("inspect", "--format", "{{.State.StartedAt}}", container),
            60,
        )

    def await_airflow(self) -> None:
        """Waits until Airflow's API answers."""

        def answers() -> bool:
            try:
                return self.http.get(f"{self.airflow_url}/api/v2/version").is_success
            except httpx.TransportError:
                return False

        await_("Airflow to answer", answers, 120)

    @contextmanager
    def down(self, service: str) -> Iterator[None]:
        """A service is away meanwhile; it answers again afterwards."""
        container = self.container_of(service)
        # S3 takes half a minute to stop; off the network it is as far away for all others.
        away: tuple[str, ...] = ("stop", "--time", "2", container)
        back: tuple[str, ...] = ("start", container)
        if service == "s3":
            away = ("network", "disconnect", "airlock", container)
            back = ("network", "connect", "--alias", service, "airlock", container)
        docker(*away)
        try:
            yield
        finally:
            docker(*back)
            healthy = ("inspect", "--format", "{{.State.Health.Status}}", container)
            await_(f"{service} to be healthy", lambda: docker(*healthy) == "healthy", 120)

    @staticmethod
    def mounted(container: str) -> set[str]:
        """Where on the host a container's mounts are."""
        return {mount["Source"] for mount in json.loads(docker("inspect", container))[0]["Mounts"]}

    @staticmethod
    def containers(project: str, role: str | None = None) -> list[str]:
        """Names of a project's containers, running or not."""
        filters = ["--filter", f"label=airlock.project={project}"]
        if role:
            filters += ["--filter", f"label=airlock.role={role}"]
        return docker("ps", "--all", "--format", "{{.Names}}", *filters).split()


def _quoted(text: str) -> str:
    return quote(text, safe="")
