"""`make demo`: from pictures in a bucket to a model that answers, shown as it happens."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import settings_file
from botocore.exceptions import BotoCoreError, ClientError
from demo.airflow_api import Airflow, Task
from demo.bucket import upload
from demo.digits import Digit, dataset

PROJECT = "digits"
WATCH, RETRAIN = f"{PROJECT}__watch", f"{PROJECT}__retrain"
POLL_SECONDS = 1.0
# Training on two busy cores takes a minute or two; a pipeline that is still going after this is stuck.
GIVE_UP_SECONDS = 1800
# Of the pictures kept back, how many may be read wrong: people misread some of them too.
SHARE_RIGHT = 0.8
ROOT = Path(__file__).resolve().parents[2]


class DemoError(Exception):
    """The demo cannot go on; the message says where to look."""


class Progress:
    """Prints each change once, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._said: set[str] = set()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Prints a line unless it was printed before."""
        if text not in self._said:
            self._said.add(text)
            print(f"  {self.seconds:5.0f} s  {text}", flush=True)


def ask(url: str, digit: Digit) -> str:
    """The label that the live API gives a picture. Raises URLError where it does not answer."""
    request = urllib.request.Request(f"{url}/predict", digit.png, {"Content-Type": "image/png"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return str(json.load(answer)["label"])


def serves(url: str) -> bool:
    """True where some release of the project answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310
            return True
    except OSError:
        return False


def follow(airflow: Airflow, progress: Progress, url: str) -> None:
    """Shows watch and retrain until the API answers. Raises DemoError where a task fails or nothing moves."""
    while not serves(url):
        if progress.seconds > GIVE_UP_SECONDS:
            raise DemoError(
                f"no model serves after {GIVE_UP_SECONDS // 60} minutes; look at {airflow.url}/dags/{RETRAIN}"
            )
        try:
            show(airflow, progress)
        except OSError as error:
            progress.say(f"Airflow does not answer, asking again: {error}")
        time.sleep(POLL_SECONDS)


def show(airflow: Airflow, progress: Progress) -> None:
    """What the pipeline does now. Raises DemoError where it has ended without a model."""
    retrain = airflow.newest_run(RETRAIN)
    if retrain is None:
        show_watch(airflow, progress)
        return
    run_id, state = retrain
    tasks = airflow.tasks(RETRAIN, run_id)
    show_tasks(progress, airflow, run_id, tasks)
    link = airflow.link(RETRAIN, run_id)
    if state == "failed":
        raise DemoError(f"the pipeline failed, its log says why; mend the cause, clear the failed task: {link}")
    if state == "success" and any(task.task_id == "keep_champion" and task.state == "success" for task in tasks):
        raise DemoError(f"{airflow.xcom(RETRAIN, run_id, 'gate', 'return_value')['reason']}: {link}")


def show_watch(airflow: Airflow, progress: Progress) -> None:
    """What the watch waits for, in its own words."""
    watch = airflow.newest_run(WATCH)
    if watch is None:
        progress.say("waiting for Airflow to read the project's DAGs")
    elif words := airflow.xcom(WATCH, watch[0], "wait_for_change", "progress"):
        progress.say(f"watch: {words}")


def show_tasks(progress: Progress, airflow: Airflow, run_id: str, tasks: list[Task]) -> None:
    """A line for each task that has begun or ended."""
    for task in sorted((t for t in tasks if t.start_date), key=lambda t: t.start_date or ""):
        if task.state in {"running", "deferred"}:
            progress.say(f"{task.task_id}: running   {airflow.link(RETRAIN, run_id, task.task_id)}")
        elif task.state in {"success", "failed", "up_for_retry"}:
            progress.say(f"{task.task_id}: {task.state.replace('_', ' ')}")


def check(url: str, kept_back: list[Digit], progress: Progress) -> None:
    """Asks the live API about pictures that it has never seen. Raises DemoError where too many are wrong."""
    right = [digit for digit in kept_back if ask(url, digit) == digit.label]
    progress.say(f"{len(right)} of {len(kept_back)} digits that it had never seen were read right")
    if len(right) < SHARE_RIGHT * len(kept_back):
        raise DemoError(
            f"the model that serves at {url} reads too many digits wrong; its figures are at {url}/metadata"
        )
    example = ROOT / ".airlock" / "digit.png"
    example.write_bytes(right[0].png)
    curl = f"curl -s --data-binary @.airlock/digit.png -H 'Content-Type: image/png' {url}/predict"
    print(f"\n  It is a {right[0].label}:  {curl}")


def main(settings: Mapping[str, str]) -> None:
    """Runs the demo. Harmless to repeat: what is there already is not done again."""
    host = settings["AIRLOCK_PUBLIC_HOST"]
    url = f"http://{host}:{settings['FRONT_PORT']}/{PROJECT}"
    airflow = Airflow(f"http://{host}:{settings['AIRFLOW_PORT']}", "admin", settings["AIRFLOW_ADMIN_PASSWORD"])
    progress = Progress()
    pictures, kept_back = dataset()
    added = upload(pictures, settings)
    progress.say(
        f"{added} handwritten digits put into the bucket {settings['S3_BUCKET_PREFIX']}{PROJECT}-train"
        if added
        else "the digits are in the bucket already"
    )
    follow(airflow, progress, url)
    check(url, kept_back, progress)


if __name__ == "__main__":
    try:
        main(settings_file.read(ROOT / ".env"))
    except (DemoError, settings_file.SettingsError, BotoCoreError, ClientError, OSError) as error:
        sys.exit(f"airlock: {error}")
    except KeyboardInterrupt:
        sys.exit("airlock: interrupted; the pipeline goes on (make demo follows it again, make down stops it)")
