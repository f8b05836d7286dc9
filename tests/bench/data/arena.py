"""One SeaweedFS, the buckets on it, and cold runs of clients against it."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
import psutil
from botocore.exceptions import ClientError
from trainer import parallel, s3
from trainer.catalogue import DATA_REMOTE, record_key
from trainer.directory import content_path
from trainer.s3 import S3Access

from tests.bench.data import process, proxy
from tests.bench.data.ours import PROJECT
from tests.bench.data.pairs import Measured
from tests.bench.data.proxy import Traffic
from tests.integration.s3_servers import S3Server, seaweedfs

CLASSES = 20
SEEDING_THREADS = 32
SMALL_BYTES = 10 << 10
LARGE_BYTES = 100 << 20


@dataclass
class Arena:
    """A running server, and where clients find it."""

    server: S3Server
    pids: list[int]
    scratch_root: Path
    endpoint_url: str = ""

    def __post_init__(self) -> None:
        self.endpoint_url = self.endpoint_url or self.server.endpoint_url
        self.client = self.server.client()

    @property
    def access(self) -> S3Access:
        """The way to it without a proxy."""
        server = self.server
        return S3Access(server.endpoint_url, server.access_key_id, server.secret_access_key, server.region)

    def environment(self) -> dict[str, str]:
        """What every client is told."""
        return {
            "S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_access_key,
            "AWS_REGION": self.server.region,
            "AWS_DEFAULT_REGION": self.server.region,
        }

    def bucket(self, word: str) -> str:
        """A fresh bucket whose volume the server has made already: that takes it a moment."""
        name = f"{word}-{uuid.uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        self.client.put_object(Bucket=name, Key="warm", Body=b"warm")
        self.client.delete_object(Bucket=name, Key="warm")
        return name

    def drop(self, *buckets: str) -> None:
        """Remove buckets with all that they hold."""
        for name in buckets:
            with suppress(ClientError):
                self.client.delete_bucket(Bucket=name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A fresh directory for one run, removed after it."""
        path = self.scratch_root / uuid.uuid4().hex
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def counted(self) -> Iterator[Traffic]:
        """Until the end of it, clients go through a counting proxy."""
        with proxy.counting(self.server.endpoint_url) as (address, traffic):
            self.endpoint_url = address
            try:
                yield traffic
            finally:
                self.endpoint_url = self.server.endpoint_url

    def ours(
        self, command: Sequence[str], buckets: Buckets, directory: Path, limit_seconds: float | None = None
    ) -> tuple[Measured, dict[str, Any]]:
        """One of the programs of `ours`, and its result."""
        environment = {**self.environment(), **buckets.environment(), **process.PYTHON_PATH}
        argv = process.python("tests.bench.data.ours", *command)
        measured, printed = process.measure(argv, environment, directory, limit_seconds)
        return measured, {} if measured.stopped else process.result(printed)

    def steps(self, buckets: Buckets, snapshot_id: str) -> dict[str, float]:
        """Seconds of each step of a snapshot, as its record has them."""
        key = record_key(PROJECT, snapshot_id)
        record = json.loads(self.client.get_object(Bucket=buckets.airlock, Key=key)["Body"].read())
        found: dict[str, float] = record["seconds"]
        return found


@dataclass(frozen=True)
class Buckets:
    """A project's three buckets."""

    train: str
    airlock: str
    dvc: str

    def environment(self) -> dict[str, str]:
        """Their names, as the trainer is told them."""
        return {"TRAIN_BUCKET": self.train, "AIRLOCK_BUCKET": self.airlock, "DVC_BUCKET": self.dvc}


@dataclass
class Dataset:
    """A bucket with files of random bytes, and the first snapshot of it."""

    arena: Arena
    buckets: Buckets
    count: int
    size: int
    seed: int
    changes: int = 0
    first: dict[str, Any] = field(default_factory=dict)

    @property
    def snapshot_id(self) -> str:
        """The first snapshot's id."""
        return str(self.first["snapshot_id"])

    def take(self) -> tuple[Measured, dict[str, Any]]:
        """A snapshot of what the bucket holds now; it has to be a new one."""
        with self.arena.scratch() as directory:
            measured, result = self.arena.ours(["take"], self.buckets, directory)
        assert result["status"] == "created", result
        return measured, result

    def change(self, count: int) -> list[str]:
        """Overwrite so many objects, spread over the bucket, with new content; its md5s."""
        self.changes += 1
        step = max(1, self.count // count)
        numbers = range(0, count * step, step)
        generation = self.seed + 1_000_000 * self.changes
        bodies = ((key_of(number), body_of(generation + number, self.size)) for number in numbers)
        return put(self.arena, self.buckets.train, bodies)

    def unpin(self, md5s: Iterable[str]) -> None:
        """Take contents out of the DVC remote again."""
        for md5 in md5s:
            self.arena.client.delete_object(Bucket=self.buckets.dvc, Key=f"{DATA_REMOTE}/{content_path(md5)}")


@contextmanager
def running(directory: Path, target: Path) -> Iterator[Arena]:
    """A fresh SeaweedFS with its data below `directory`; what clients write goes below `target`."""
    with seaweedfs(directory) as server:
        pids = [each.pid for each in psutil.Process().children() if each.name() == "weed"]
        yield Arena(server, pids, target)


def file_system(directory: Path) -> str:
    """The kind of file system that a directory is on: its price for a new file is in every pull."""
    path = directory.resolve()
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounts[each] for each in (path, *path.parents) if each in mounts), "unknown")


def key_of(number: int) -> str:
    """The key of a file of a dataset."""
    return f"class-{number % CLASSES:02d}/picture-{number:06d}.jpg"


def body_of(seed: int, size: int) -> bytes:
    """Bytes that no other seed has."""
    return random.Random(seed).randbytes(size)


def put(arena: Arena, bucket: str, bodies: Iterable[tuple[str, bytes]], threads: int = SEEDING_THREADS) -> list[str]:
    """Upload; the md5s."""
    store = s3.store(arena.access, bucket)

    def one(each: tuple[str, bytes]) -> str:
        key, body = each
        obstore.put(store, key, body, use_multipart=False)
        return hashlib.md5(body, usedforsecurity=False).hexdigest()

    return list(parallel.unordered(one, bodies, threads))


def seeded(arena: Arena, count: int, size: int, seed: int) -> Dataset:
    """A dataset of so many files, with its first snapshot."""
    buckets = Buckets(*(arena.bucket(word) for word in ("train", "airlock", "dvc")))
    threads = SEEDING_THREADS if size < LARGE_BYTES else 4
    put(arena, buckets.train, ((key_of(n), body_of(seed + n, size)) for n in range(count)), threads)
    dataset = Dataset(arena, buckets, count, size, seed)
    _, dataset.first = dataset.take()
    return dataset
