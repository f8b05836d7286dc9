"""A project made for one test module: its YAML file, its pictures, its runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import Any

import yaml
from demo import digits as demo_digits

from tests.e2e.system import ROOT, Run, System, await_, docker, images, make

PROJECTS = ROOT / "include" / "projects"
SETTINGS: dict[str, Any] = {
    "device": "${AIRLOCK_DEVICE:-cuda}",
    "image_size": 32,
    "epochs": 5,
    "batch": 32,
    "learning_rate": 0.002,
    "seed": 7,
    "train_args": {"optimizer": "AdamW", "auto_augment": None, "erasing": 0.0, "fliplr": 0.0, "scale": 0.2},
    "settle_seconds": 3,
    # The demo has two.
    "replicas": 1,
    # Of a busy machine a p99 tells nothing.
    "bake": {"seconds": 2, "max_p99_ratio": 100.0},
    "poll_seconds": 1,
    "retries": 1,
    "retry_delay_seconds": 1,
    "memory_bytes": "3g",
    "api_memory_bytes": "512m",
    "min_images_per_class": 5,
    # A few epochs make a middling model; here the way counts, not the model.
    "gate": {"margin_over_majority": 0.0, "min_gain": -1.0, "max_class_loss": 1.0},
}


def pictures() -> list[demo_digits.Digit]:
    """The demo's digits, in their fixed order."""
    demo_digits.DATA = next((ROOT / ".airlock" / "demo").rglob("digits.csv.gz"))
    return list(demo_digits.digits())


class Lab:
    """One project on the running system."""

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        self.name = name
        self.bucket = f"{name}-train"
        self._settings = dict(SETTINGS)
        # A project of this name may have been here before: the same bytes again would be nothing new to Airflow.
        self.salt = token_hex(3)

    def configure(self, **changes: Any) -> None:
        """Writes the project's file with these settings changed, and has it taken up."""
        self._settings |= changes
        file = PROJECTS / f"{self.name}.yaml"
        new = not file.exists()
        if new:
            delete_dags(self.system, self.name)  # of an earlier project of this name, on a system that was kept
        file.write_text(yaml.safe_dump(self._settings))
        if new:
            make("up")
            await_(f"Airflow to know {self.name}", lambda: self.system.runs(f"{self.name}__watch"), 90)

    def put(self, digits: list[demo_digits.Digit], *, shift: int = 0) -> None:
        """Uploads pictures; `shift` puts each under the label that many further on."""

        def one(digit: demo_digits.Digit) -> None:
            label = (int(digit.label) + shift) % 10
            self.system.s3.put_object(
                Bucket=self.system.bucket(self.bucket), Key=f"{label}/{self.salt}-{digit.name}", Body=digit.png
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, digits))

    def clear(self) -> None:
        """Deletes every picture of the bucket."""
        empty_bucket(self.system, self.bucket)

    def retrains(self) -> list[Run]:
        """The retrain runs, the newest first."""
        return self.system.runs(f"{self.name}__retrain")

    def await_new_retrain(self, known: list[Run], seconds: float = 120) -> Run:
        """Waits for a retrain run that is not among the known ones."""
        before = {run.run_id for run in known}

        def new() -> Run | None:
            return next((run for run in self.retrains() if run.run_id not in before), None)

        return await_(f"a new run of {self.name}__retrain", new, seconds)

    def manual(self, partition_key: str | None = None, **conf: Any) -> Run:
        """Triggers a retrain by hand."""
        answer = self.system.trigger(self.name, partition_key, **conf)
        assert answer.status_code == 200, answer.text
        return self.system.run(f"{self.name}__retrain", answer.json()["dag_run_id"])


def empty_bucket(system: System, bucket: str, prefix: str = "") -> None:
    """Deletes every object of a bucket whose key begins so."""
    name = system.bucket(bucket)
    for page in system.s3.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix):
        if rows := page.get("Contents", []):
            system.s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": row["Key"]} for row in rows]})


def withdraw(system: System, name: str) -> None:
    """Removes a project as docs/operating.md says; its data stay."""
    end_project(system, name)
    make("up")
    delete_dags(system, name)


def delete_dags(system: System, name: str) -> None:
    """Removes a project's DAGs from Airflow, runs too, where it has them."""
    for dag in ("watch", "retrain"):
        answer = system.airflow("DELETE", f"/dags/{name}__{dag}")
        assert answer.status_code in (204, 404), answer.text


def end_project(system: System, name: str) -> None:
    """Ends all that a project does, and removes its file; its route goes at the next `make up`."""
    for dag in ("watch", "retrain"):
        system.airflow("PATCH", f"/dags/{name}__{dag}", {"is_paused": True})
        for run in system.runs(f"{name}__{dag}"):
            if run.state in {"running", "queued"}:
                system.give_up(run)
    (PROJECTS / f"{name}.yaml").unlink(missing_ok=True)


def remove_project(system: System, name: str) -> None:
    """Removes a project with its pictures and records: the next of its name begins anew."""
    end_project(system, name)
    for kind in ("releases", "snapshots", "backfills"):
        empty_bucket(system, "airlock", f"{kind}/{name}/")
    if f"{name}-train" in [bucket["Name"] for bucket in system.s3.list_buckets()["Buckets"]]:
        empty_bucket(system, f"{name}-train")
        system.s3.delete_bucket(Bucket=system.bucket(f"{name}-train"))
    for container in system.containers(name):
        docker("rm", "--force", container)


def take_a_snapshot(lab: Lab) -> str:
    """What the task does up to the record, and no further: the container's part, without Airflow's. Returns its id."""
    system = lab.system
    environment = {
        "PROJECT": lab.name,
        "S3_ENDPOINT_URL": system.settings["S3_ENDPOINT_URL"],
        "AWS_REGION": system.settings["S3_REGION"],
        "AWS_ACCESS_KEY_ID": system.settings["S3_TRAINER_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": system.settings["S3_TRAINER_SECRET_ACCESS_KEY"],
        "TRAIN_BUCKET": system.bucket(lab.bucket),
        "AIRLOCK_BUCKET": system.bucket("airlock"),
        "DVC_BUCKET": system.bucket("dvc"),
        "EXPECTED_DIGEST": "",
        "TRIGGERED_BY": "a task that was killed",
        "IMAGE_ID": "sha256:none",
        "CODE_COMMIT": "none",
    }
    options = [f"--env={name}={value}" for name, value in environment.items()]
    docker("run", "--rm", "--network", "airlock", *options, images()["TRAINER_DEFAULT"], "snapshot")
    rows = system.s3.list_objects_v2(Bucket=system.bucket("airlock"), Prefix=f"snapshots/{lab.name}/")["Contents"]
    newest = max(row["Key"] for row in rows if row["Key"].endswith(".json"))
    return str(newest.rpartition("/")[2].removesuffix(".json"))
