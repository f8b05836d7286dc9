"""Snapshots of a synthetic bucket, and whether DVC would have made the same directory object."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import s3

from tests.bench.data import process, synthetic
from tests.bench.data.arena import Arena, Buckets
from tests.bench.data.lab import Lab
from tests.bench.data.pairs import Measured
from tests.bench.data.report import Figure, Line
from tests.integration.s3_servers import S3Server
from tests.tools.environments import executable

GOAL_SECONDS = 60.0
GOAL_BYTES_PER_OBJECT = 1024
BUCKETS = Buckets(synthetic.TRAIN, synthetic.AIRLOCK, synthetic.DVC)


@dataclass
class Synthetic:
    """A running synthetic server and what its train bucket holds."""

    arena: Arena
    count: int
    changed: int = 0

    def change(self, count: int) -> None:
        """Overwrite the first objects."""
        client = s3.client(self.arena.access)
        for number in range(count):
            client.put_object(
                Bucket=synthetic.TRAIN, Key=synthetic.key_of(number), Body=synthetic.body_of(number, version=1)
            )
        self.changed = count

    def take(self) -> tuple[Measured, dict[str, Any]]:
        """Our snapshot of it."""
        with self.arena.scratch() as directory:
            return self.arena.ours(["take"], BUCKETS, directory)

    def directory_of_dvc(self) -> str:
        """The name of the directory object by DVC's classes, from the keys and bodies as they were invented."""
        lines = (
            f"{synthetic.md5_of(synthetic.body_of(number, int(number < self.changed)))}\t{synthetic.key_of(number)}\n"
            for number in range(self.count)
        )
        program = Path(__file__).with_name("dvc_directory.py")
        done = subprocess.run(
            [executable("dvc", "python"), program], input="".join(lines), text=True, check=True, stdout=subprocess.PIPE
        )
        return done.stdout.strip()


@contextmanager
def running(count: int, scratch: Path) -> Iterator[Synthetic]:
    """A synthetic server in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.data.synthetic", str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=process.ROOT) as server:
        try:
            assert server.stdout
            port = server.stdout.readline().strip()
            assert port, "the synthetic server did not start"
            access = S3Server("synthetic", f"http://127.0.0.1:{port}", "any", "any")
            yield Synthetic(Arena(access, [server.pid], scratch), count)
        finally:
            server.kill()


def million(lab: Lab) -> list[Line]:
    """The time of a snapshot with few changes, and its memory."""
    scale = lab.scale
    with running(2, lab.arena.scratch_root) as almost_empty:
        _, base = almost_empty.take()
    with running(scale.synthetic, lab.arena.scratch_root) as bucket:
        _, first = bucket.take()
        bucket.change(scale.synthetic_changed)
        measured, second = bucket.take()
        same = second["md5"] == bucket.directory_of_dvc()
    over = max(first["peak_bytes"], second["peak_bytes"]) - base["peak_bytes"]
    each = over / scale.synthetic
    changes = f"{scale.synthetic:,} keys, {scale.synthetic_changed:,} changed"
    words = f"{measured.seconds:.1f} s, {measured.cpu_seconds:.1f} CPU s; the `.dir` is {'' if same else 'not '}DVC's"
    return [
        Figure(
            changes, "≤ 60 s, the `.dir` equal to DVC's", words, measured.seconds <= GOAL_SECONDS and same, SYNTHETIC
        ),
        Figure(
            f"memory, {scale.synthetic:,} keys",
            "≤ 1 KiB an object",
            f"{each:.0f} B an object ({over / 2**20:.0f} MiB)",
            each <= GOAL_BYTES_PER_OBJECT,
            SYNTHETIC,
        ),
    ]


SYNTHETIC = "a synthetic listing"
