"""The clients that Airlock is measured against, each as one process and one cold run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainer.catalogue import DATA_REMOTE
from trainer.directory import pointer

from tests.bench.data import process
from tests.bench.data.arena import Arena, Dataset
from tests.bench.data.pairs import Client, Measured
from tests.tools.environments import executable

# The best of a sweep from 2 to 64 on 2 cores that the server shares. In pulls 4 to 16 are level, and more are slower:
# they only take the server's time. DVC's pushes wait longer for each write: from 16 on more gain nothing.
S5CMD_WORKERS = 8
RCLONE_TRANSFERS = 8
DVC_PULL_JOBS = 8
DVC_PUSH_JOBS = 16


def s5cmd_program() -> Path:
    """The program itself: what pip puts beside Python starts it from Python, which costs it a moment."""
    home = executable("bench", "s5cmd").parent.parent
    [program] = home.glob("lib/python*/site-packages/s5cmd/bin/s5cmd")
    return program


def s5cmd(arena: Arena) -> list[str]:
    """Its command without what it is to do; the address is no setting of its environment."""
    return [str(s5cmd_program()), "--endpoint-url", arena.endpoint_url, "--numworkers", str(S5CMD_WORKERS)]


def boto3_pull(arena: Arena, dataset: Dataset) -> Client:
    """The sequential loop."""
    module = "tests.bench.data.boto3_loop"
    return pull(
        arena, dataset, lambda files: process.python(module, dataset.buckets.train, str(files)), process.PYTHON_PATH
    )


def s5cmd_pull(arena: Arena, dataset: Dataset) -> Client:
    """`s5cmd cp`."""
    return pull(arena, dataset, lambda files: [*s5cmd(arena), "cp", f"s3://{dataset.buckets.train}/*", f"{files}/"])


def rclone_pull(arena: Arena, dataset: Dataset) -> Client:
    """`rclone copy`."""
    program, many = str(executable("bench", "rclone")), str(RCLONE_TRANSFERS)

    def command(files: Path) -> list[str]:
        # Its settings go along as flags: the address changes where a proxy counts.
        remote = f":s3,provider=SeaweedFS,env_auth=true,endpoint='{arena.endpoint_url}':{dataset.buckets.train}"
        return [program, "copy", remote, str(files), "--transfers", many, "--checkers", many]

    return pull(arena, dataset, command, {"RCLONE_CONFIG": ""})


def pull(
    arena: Arena, dataset: Dataset, command: Callable[[Path], list[str]], more: Mapping[str, str] | None = None
) -> Client:
    """A cold run of the command that brings the pictures' bucket into a folder; `more` is added to its environment."""

    def run(limit: float | None) -> Measured:
        with arena.scratch() as directory:
            environment = {**arena.environment(), **(more or {})}
            measured, _ = process.measure(command(directory / "files"), environment, directory, limit)
            check(measured, dataset, directory / "files")
        return measured

    return run


def dvc_pull(arena: Arena, dataset: Dataset) -> Client:
    """`dvc pull` of a snapshot's `.dvc` file into an empty repository; files become links, the cheapest that it has."""

    def run(limit: float | None) -> Measured:
        with arena.scratch() as directory:
            repo = Repo(arena, directory)
            repo.init(f"s3://{dataset.buckets.dvc}/{DATA_REMOTE}")
            repo.dvc("config", "cache.type", "symlink")
            (directory / "files.dvc").write_text(pointer(dataset.first["md5"], "files"))
            measured = repo.run(repo.command("pull", "-q", "-j", str(DVC_PULL_JOBS)), limit)
            check(measured, dataset, directory / "files")
        return measured

    return run


def check(measured: Measured, dataset: Dataset, directory: Path) -> None:
    """A run that did not bring every file is none."""
    if not measured.stopped:
        sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
        assert sizes == [dataset.size] * dataset.count, f"{directory} holds {len(sizes)} files of {dataset.count}"


class Repo:
    """A DVC repository without git, with nothing shared with others."""

    def __init__(self, arena: Arena, directory: Path) -> None:
        self.arena = arena
        self.directory = directory

    def init(self, remote: str) -> None:
        """Make it, with its remote."""
        self.dvc("init", "-q", "--no-scm")
        self.dvc("remote", "add", "-q", "-d", "store", remote)

    def environment(self) -> dict[str, str]:
        """What its processes are told. What DVC remembers between runs stays in the repository."""
        own = {"DVC_SITE_CACHE_DIR": str(self.directory / ".site"), "DVC_NO_ANALYTICS": "1"}
        return {**self.arena.environment(), **own}

    def command(self, *arguments: str) -> list[str]:
        """A DVC command."""
        return [str(executable("dvc", "dvc")), *arguments]

    def run(self, command: Sequence[str], limit: float | None = None) -> Measured:
        """Run in it and measure."""
        measured, _ = process.measure(command, self.environment(), self.directory, limit)
        return measured

    def dvc(self, *arguments: str) -> None:
        """Run a DVC command that is not measured."""
        self.run(self.command(*arguments))

    def sync_add_push(self, bucket: str, limit: float | None = None) -> Measured:
        """What DVC users do: fetch what is new in the bucket, hash it, upload it."""
        jobs = str(DVC_PUSH_JOBS)
        steps = [
            [*s5cmd(self.arena), "sync", f"s3://{bucket}/*", "files/"],
            self.command("add", "-q", "files"),
            self.command("push", "-q", "-j", jobs),
        ]
        return self.run(["sh", "-c", " && ".join(shlex.join(step) for step in steps)], limit)

    def import_to_remote(self, bucket: str, limit: float | None = None) -> Measured:
        """What DVC has for a bucket that is to be tracked without a copy here: it streams through this host."""
        return self.run(
            self.command("import-url", "-q", "--to-remote", "-j", str(DVC_PUSH_JOBS), f"s3://{bucket}", "files"), limit
        )

    @property
    def md5(self) -> str:
        """The directory object that `files.dvc` points to."""
        outs = (self.directory / "files.dvc").read_text().partition("outs:")[2]
        return outs.partition("md5: ")[2].split()[0].strip("'")
