"""The host's cache against a real S3 server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trainer
from trainer.cache import Cache, Fetched
from trainer.errors import DataError, UnavailableError

from tests.integration.dataset_lab import Lab, content_key, md5
from tests.integration.s3_servers import S3Server

BODIES = [f"content {n}".encode() * (n + 1) for n in range(40)]


SIZES = {md5(body): len(body) for body in BODIES}


@pytest.fixture
def lab(s3_server: S3Server) -> Lab:
    """A DVC remote that holds BODIES."""
    lab = Lab.on(s3_server)
    lab.pin(*BODIES)
    return lab


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


def files(cache: Cache) -> dict[str, bytes]:
    """Every content of a cache, by its path."""
    return {str(p.relative_to(cache.root)): p.read_bytes() for p in (cache.root / "files").rglob("*") if p.is_file()}


WHOLE = {content_key(md5(body)).removeprefix("data/"): body for body in BODIES}


def test_a_fetch_lays_content_out_as_dvc_does_read_only_and_a_second_one_fetches_nothing(
    lab: Lab, cache: Cache
) -> None:
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(40, sum(SIZES.values()))
    assert files(cache) == WHOLE
    assert all(cache.path(digest).stat().st_mode & 0o777 == 0o444 for digest in SIZES)
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(0, 0)


def test_only_what_is_missing_is_fetched(lab: Lab, cache: Cache) -> None:
    some = dict(list(SIZES.items())[:30])
    cache.fetch(lab.access, lab.dvc, some)
    assert cache.fetch(lab.access, lab.dvc, SIZES).objects == 10


def test_what_was_verified_once_is_not_read_again_though_a_tree_has_linked_to_it(
    lab: Lab, cache: Cache, tmp_path: Path
) -> None:
    cache.fetch(lab.access, lab.dvc, SIZES)
    os.link(cache.path(md5(BODIES[7])), tmp_path / "link")
    assert cache.fetch(lab.access, lab.dvc, SIZES).verified == 0


def test_a_file_that_another_program_put_there_is_verified_once(lab: Lab, cache: Cache) -> None:
    cache.fetch(lab.access, lab.dvc, SIZES)
    theirs = cache.path(md5(BODIES[7]))
    theirs.unlink()
    theirs.write_bytes(BODIES[7])
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(0, 0, verified=1)
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(0, 0, verified=0)


def test_after_a_month_everything_is_verified_again_and_what_has_rotten_meanwhile_is_fetched(
    lab: Lab, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.fetch(lab.access, lab.dvc, SIZES)
    rotten = cache.path(md5(BODIES[7]))
    stat = rotten.stat()
    rotten.chmod(0o644)
    rotten.write_bytes(BODIES[7][:-1] + bytes([BODIES[7][-1] ^ 1]))
    os.utime(rotten, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a disk that rots changes no times
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(0, 0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31 * 24 * 3600)
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(1, len(BODIES[7]), verified=40)
    assert files(cache) == WHOLE


@pytest.mark.parametrize("damage", ["header", "pages"])
def test_a_damaged_memory_of_what_was_verified_costs_reading_everything_once(
    lab: Lab, cache: Cache, damage: str
) -> None:
    cache.fetch(lab.access, lab.dvc, SIZES)
    database = cache.root / "contents.db"
    content = database.read_bytes()
    database.write_bytes(b"x" * 100 + content[100:] if damage == "header" else content[:4096] + b"x" * 4096)
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(0, 0, verified=40)
    cache.fetch(lab.access, lab.dvc, SIZES)
    assert cache.fetch(lab.access, lab.dvc, SIZES) == Fetched(0, 0, verified=0)


def test_a_truncated_file_is_fetched_again(lab: Lab, cache: Cache) -> None:
    cache.fetch(lab.access, lab.dvc, SIZES)
    damaged = cache.path(md5(BODIES[7]))
    damaged.chmod(0o644)
    damaged.write_bytes(BODIES[7][:3])
    assert cache.fetch(lab.access, lab.dvc, SIZES).objects == 1
    assert files(cache) == WHOLE


def test_a_file_with_a_flipped_bit_is_found_and_fetched_again(
    lab: Lab, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.fetch(lab.access, lab.dvc, SIZES)
    rotten = cache.path(md5(BODIES[7]))
    rotten.chmod(0o644)
    rotten.write_bytes(BODIES[7][:-1] + bytes([BODIES[7][-1] ^ 1]))
    assert cache.fetch(lab.access, lab.dvc, SIZES).objects == 1
    assert f"cache.damaged path={rotten}" in caplog.text
    assert files(cache) == WHOLE


def test_a_remote_object_that_was_altered_is_named_and_never_enters_the_cache(lab: Lab, cache: Cache) -> None:
    key = content_key(md5(BODIES[3]))
    lab.client.put_object(Bucket=lab.dvc, Key=key, Body=b"x" * len(BODIES[3]))
    with pytest.raises(DataError, match=f"{lab.dvc}/{key} is damaged"):
        cache.fetch(lab.access, lab.dvc, SIZES)
    assert not cache.path(md5(BODIES[3])).exists()
    assert files(cache).items() <= WHOLE.items()


def test_a_remote_object_that_is_gone_is_named(lab: Lab, cache: Cache) -> None:
    key = content_key(md5(BODIES[3]))
    lab.client.delete_object(Bucket=lab.dvc, Key=key)
    with pytest.raises(DataError, match=f"{lab.dvc}/{key} is missing"):
        cache.fetch(lab.access, lab.dvc, SIZES)


def test_a_large_object_is_streamed_whole(lab: Lab, cache: Cache) -> None:
    body = os.urandom(20 << 20)
    lab.pin(body)
    cache.fetch(lab.access, lab.dvc, {md5(body): len(body)})
    assert cache.path(md5(body)).read_bytes() == body


def test_a_full_disk_is_told_before_anything_is_downloaded(
    lab: Lab, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100 << 20, 95 << 20, 5 << 20))
    with pytest.raises(UnavailableError, match="5 MiB free"):
        cache.fetch(lab.access, lab.dvc, SIZES)
    assert files(cache) == {}


def test_a_cache_that_cannot_be_written_is_told(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the volume should be")
    with pytest.raises(UnavailableError, match="cannot be written"):
        Cache(tmp_path / "cache").fetch(lab.access, lab.dvc, SIZES)


FETCH = """
import os, signal, sys
from pathlib import Path
from trainer import cache
from trainer.s3 import S3Access
root, kill_after, endpoint, key, secret, bucket, *sizes = sys.argv[1:]
rename, done = os.rename, []
def counted(part, target):
    done.append(target)
    if len(done) == int(kill_after):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(part, target)
os.rename = counted
wanted = {md5: int(size) for md5, size in (each.split("=") for each in sizes)}
cache.Cache(Path(root)).fetch(S3Access(endpoint, key, secret), bucket, wanted)
"""


def fetching(lab: Lab, cache: Cache, kill_after: int) -> subprocess.Popen[bytes]:
    server = lab.server
    words = [str(cache.root), str(kill_after), server.endpoint_url, server.access_key_id, server.secret_access_key]
    words += [lab.dvc, *(f"{digest}={size}" for digest, size in SIZES.items())]
    environment = {**os.environ, "PYTHONPATH": str(Path(trainer.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", FETCH, *words], env=environment, stderr=subprocess.PIPE)


def test_killed_in_the_middle_it_leaves_only_whole_files_and_the_next_fetch_clears_up(lab: Lab, cache: Cache) -> None:
    with fetching(lab, cache, kill_after=15) as killed:
        assert killed.wait(60) == -9
    assert 0 < len(files(cache)) < 40
    assert files(cache).items() <= WHOLE.items()
    cache.fetch(lab.access, lab.dvc, SIZES)
    assert files(cache) == WHOLE
    assert list((cache.root / "tmp").iterdir()) == []


def test_two_runs_on_one_host_may_fetch_the_same_at_once(lab: Lab, cache: Cache) -> None:
    with fetching(lab, cache, kill_after=0) as one, fetching(lab, cache, kill_after=0) as other:
        codes = one.wait(60), other.wait(60)
        assert codes == (0, 0), (one.stderr and one.stderr.read(), other.stderr and other.stderr.read())
    assert files(cache) == WHOLE
