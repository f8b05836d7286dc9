"""The cache stays below its limit, and no running training loses a file by that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import trainer
from trainer.cache import Cache
from trainer.errors import ConfigError, UnavailableError

from tests.integration.dataset_lab import Lab, md5
from tests.integration.s3_servers import S3Server

KIB = 1 << 10
BODIES = [bytes([n]) * KIB for n in range(40)]
MD5S = [md5(body) for body in BODIES]


@pytest.fixture(scope="module")
def lab(s3_server: S3Server) -> Lab:
    """A DVC remote with 40 contents of 1 KiB."""
    lab = Lab.on(s3_server)
    lab.pin(*BODIES)
    return lab


def some(start: int, end: int) -> dict[str, int]:
    return dict.fromkeys(MD5S[start:end], KIB)


def present(root: Path) -> set[int]:
    return {number for number, digest in enumerate(MD5S) if Cache(root).path(digest).exists()}


RUN = """
import sys
from pathlib import Path
from trainer.cache import Cache
from trainer.s3 import S3Access
root, limit, endpoint, key, secret, bucket, *md5s = sys.argv[1:]
cache = Cache(Path(root), int(limit) or None)
cache.fetch(S3Access(endpoint, key, secret), bucket, {md5: 1024 for md5 in md5s})
print("fetched", flush=True)
sys.stdin.read()
"""


@contextmanager
def training(lab: Lab, root: Path, sizes: Mapping[str, int], limit: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Another run on this host, which has fetched and goes on until the end of the block."""
    server = lab.server
    words = [str(root), str(limit), server.endpoint_url, server.access_key_id, server.secret_access_key, lab.dvc]
    environment = {**os.environ, "PYTHONPATH": str(Path(trainer.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *words, *sizes],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        assert run.stdout
        assert run.stdout.readline() == "fetched\n"
        yield run
        run.communicate()


def trained(lab: Lab, root: Path, sizes: Mapping[str, int], limit: int = 0) -> None:
    with training(lab, root, sizes, limit):
        pass


def fetch(lab: Lab, root: Path, sizes: Mapping[str, int], limit: int) -> None:
    Cache(root, limit).fetch(lab.access, lab.dvc, sizes)


def test_what_was_not_used_for_longest_goes_first(lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    trained(lab, tmp_path, some(0, 10))
    trained(lab, tmp_path, some(10, 20))
    trained(lab, tmp_path, some(0, 5))  # used again, though it was fetched first
    fetch(lab, tmp_path, some(20, 30), 20 * KIB)
    left = present(tmp_path)
    assert set(range(20, 30)) <= left
    assert set(range(0, 5)) <= left
    assert len(left) == 20
    assert "cache.evicted objects=10 bytes=10240" in caplog.text


def test_a_file_that_nobody_remembers_is_as_old_as_its_last_change(lab: Lab, tmp_path: Path) -> None:
    trained(lab, tmp_path, some(0, 10))
    for number, age in ((10, -1000), (11, 1000)):
        path = Cache(tmp_path).path(MD5S[number])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(BODIES[number])
        at = path.stat().st_mtime + age
        os.utime(path, (at, at))
    fetch(lab, tmp_path, some(20, 21), 12 * KIB)
    assert present(tmp_path) == {*range(10), 11, 20}


def test_nothing_is_evicted_below_the_limit_nor_without_one(lab: Lab, tmp_path: Path) -> None:
    trained(lab, tmp_path, some(0, 10))
    fetch(lab, tmp_path, some(10, 20), 20 * KIB)
    Cache(tmp_path).fetch(lab.access, lab.dvc, some(20, 30))
    assert len(present(tmp_path)) == 30


def test_what_a_running_training_holds_is_spared_and_free_when_it_was_killed(lab: Lab, tmp_path: Path) -> None:
    with training(lab, tmp_path, some(0, 10)) as running:
        trained(lab, tmp_path, some(10, 20))
        trained(lab, tmp_path, some(20, 30), 20 * KIB)
        assert present(tmp_path) == {*range(10), *range(20, 30)}
        running.kill()
        running.wait()
        fetch(lab, tmp_path, some(30, 40), 20 * KIB)
        assert present(tmp_path) == set(range(20, 40))


def test_a_content_that_a_tree_links_to_is_spared_though_its_run_is_dead(lab: Lab, tmp_path: Path) -> None:
    trained(lab, tmp_path, some(0, 10))
    os.link(Cache(tmp_path).path(MD5S[0]), tmp_path / "tree")
    fetch(lab, tmp_path, some(10, 20), 11 * KIB)
    assert present(tmp_path) == {0, *range(10, 20)}


def test_a_dataset_beyond_the_limit_is_a_wrong_setting_and_evicts_nothing(lab: Lab, tmp_path: Path) -> None:
    trained(lab, tmp_path, some(0, 10))
    with pytest.raises(ConfigError, match=r"may hold 0\.0 MiB .*the dataset alone has 0\.0 MiB.*AIRLOCK_CACHE_LIMIT"):
        fetch(lab, tmp_path, some(10, 40), 20 * KIB)
    assert present(tmp_path) == set(range(10))


def test_a_cache_full_of_what_others_use_is_worth_another_try(lab: Lab, tmp_path: Path) -> None:
    with training(lab, tmp_path, some(0, 15)):
        with pytest.raises(UnavailableError, match="in use by other runs"):
            fetch(lab, tmp_path, some(20, 30), 20 * KIB)
        assert present(tmp_path) == set(range(15))


def test_two_runs_that_fetch_at_once_do_not_evict_each_others(lab: Lab, tmp_path: Path) -> None:
    trained(lab, tmp_path, some(0, 20))
    with (
        training(lab, tmp_path, some(10, 25), 30 * KIB),
        training(lab, tmp_path, some(25, 40), 30 * KIB),
    ):
        assert present(tmp_path) == set(range(10, 40))


def test_holds_of_ended_runs_do_not_pile_up(lab: Lab, tmp_path: Path) -> None:
    for start in range(3):
        trained(lab, tmp_path, some(start, start + 1))
    assert len(list(islice((tmp_path / "holds").iterdir(), 4))) == 1
