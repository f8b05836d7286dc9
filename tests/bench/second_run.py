"""`make bench-second-run`: a training on data that the host has seen, from the container's start to its first batch.

Beside it the same container with Ultralytics' own scan of the dataset, in which it opens every picture.
"""

from __future__ import annotations

import io
import random
import statistics
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from docker.models.containers import Container
from PIL import Image

from tests.bench.data.pairs import PAIRS
from tests.bench.data.process import end_on_sigterm
from tests.integration.dataset_lab import Lab
from tests.integration.mlflow_fixture import running_mlflow
from tests.integration.s3_servers import seaweedfs
from tests.integration.trainer_container import STOCK_SCAN, Trainer, environment_of, trainer

PICTURES = 10_000
CLASSES = 10
SIDE = 64
GOAL_SECONDS = 5.0
FIRST_BATCH = "bench.first_batch"
TELLS_ITS_FIRST_BATCH = f"""
from trainer import scan  # before Ultralytics: it declares what torchvision may lack
from ultralytics.models.yolo.classify import ClassificationTrainer
through = ClassificationTrainer.preprocess_batch
def told(self, batch):
    print("{FIRST_BATCH}", flush=True)
    return through(self, batch)
ClassificationTrainer.preprocess_batch = told
"""
NOTHING_TO_DO = ("verified=0 missing=0", "decoded pictures=0 ")


def pictures() -> Iterator[tuple[str, bytes]]:
    """Noise in the colours of a class."""
    for number in range(PICTURES):
        dice = random.Random(number)
        label = number % CLASSES
        image = Image.frombytes("RGB", (SIDE, SIDE), dice.randbytes(3 * SIDE * SIDE))
        tinted = Image.blend(image, Image.new("HSV", image.size, (label * 25, 255, 255)).convert("RGB"), 0.5)
        content = io.BytesIO()
        tinted.save(content, "JPEG", quality=85)
        yield f"class-{label}/{number:05d}.jpg", content.getvalue()


def to_the_first_batch(box: Trainer, number: int, patch: str = "") -> tuple[float, str]:
    """Seconds from the container's start, by the engine's clock, and the log until then; it is stopped there."""
    container = box.start("train", TELLS_ITS_FIRST_BATCH + patch, AIRFLOW_RUN_ID=f"manual__{number}")
    box.wait_for_log(container, lambda line: FIRST_BATCH in line)
    log = container.logs(timestamps=True).decode()
    container.kill()
    container.wait()
    line = next(line for line in log.splitlines() if FIRST_BATCH in line)
    return _seconds(line.split()[0]) - _started(container), log


def _started(container: Container) -> float:
    container.reload()
    return _seconds(container.attrs["State"]["StartedAt"])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> None:
    """Prints the line of docs/benchmarks.md."""
    end_on_sigterm()
    with (
        tempfile.TemporaryDirectory() as directory,
        seaweedfs(Path(directory) / "s3") as server,
        running_mlflow(Path(directory) / "mlflow") as mlflow,
    ):
        lab = Lab.on(server)
        for key, body in pictures():
            lab.put(key, body)
        environment = environment_of(lab, str(lab.take().snapshot_id), mlflow.url)
        with trainer(environment) as box:
            first, _ = to_the_first_batch(box, 0)
            print(f"the first run on this host: {first:.2f} s")
            own: list[float] = []
            stock: list[float] = []
            for number in range(1, 2 * PAIRS, 2):
                seconds, log = to_the_first_batch(box, number)
                assert all(each in log for each in NOTHING_TO_DO), log
                own.append(seconds)
                stock.append(to_the_first_batch(box, number + 1, STOCK_SCAN)[0])
    print(f"{PICTURES:,} pictures: to the first batch {_range(own)} s, with the stock scan {_range(stock)} s")
    print(f"beside the stock scan: {_range([theirs / ours for ours, theirs in zip(own, stock, strict=True)])} times")
    print(f"goal of {GOAL_SECONDS:g} s: {'met' if statistics.median(own) <= GOAL_SECONDS else 'MISSED'}")


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}; {len(values)})"


if __name__ == "__main__":
    main()
