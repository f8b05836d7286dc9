"""The host's cache is DVC's own: a person's `dvc` and the trainer share what either has fetched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainer.cache import Cache
from trainer.catalogue import Catalogue

from tests.integration.dataset_lab import PROJECT, Lab
from tests.integration.s3_proxy import S3Proxy, s3_proxy
from tests.integration.s3_servers import S3Server
from tests.tools.environments import executable

FILES = {f"cat/größe {n}.png": f"picture {n}".encode() for n in range(12)}


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    """A proxy that counts what a person's DVC fetches."""
    with s3_proxy(s3_server) as proxy:
        yield proxy


@pytest.fixture
def lab(s3_server: S3Server) -> Lab:
    """A bucket with FILES."""
    lab = Lab.on(s3_server)
    for key, body in FILES.items():
        lab.put(key, body)
    return lab


def dvc_pull(lab: Lab, proxy: S3Proxy, snapshot_id: str, cache: Path, cwd: Path) -> dict[str, bytes]:
    """A person checks the snapshot out, with the host's cache as DVC's; the files that are there then."""
    (cwd / ".dvc").mkdir(parents=True)
    (cwd / ".dvc" / "config").write_text(
        f"[core]\n no_scm = True\n remote = data\n[cache]\n dir = {cache}\n"
        f"['remote \"data\"']\n url = s3://{lab.dvc}/data\n endpointurl = {proxy.server.endpoint_url}\n"
    )
    (cwd / "pets.dvc").write_bytes(lab.read(lab.airlock, f"snapshots/{PROJECT}/{snapshot_id}.dvc"))
    keys = {"AWS_ACCESS_KEY_ID": lab.server.access_key_id, "AWS_SECRET_ACCESS_KEY": lab.server.secret_access_key}
    done = subprocess.run(
        [executable("dvc", "dvc"), "pull", "-q"],
        cwd=cwd,
        env={**os.environ, **keys, "AWS_REGION": "us-east-1", "HOME": str(cwd), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    root = cwd / PROJECT
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def contents_fetched(proxy: S3Proxy) -> int:
    of_contents = "data/files/md5/"
    found, _ = proxy.count(
        lambda call: call.method == "GET" and call.key.startswith(of_contents) and not call.key.endswith(".dir")
    )
    return found


def test_a_persons_dvc_fetches_nothing_that_the_hosts_cache_holds(lab: Lab, proxy: S3Proxy, tmp_path: Path) -> None:
    snapshot_id = lab.take().snapshot_id or ""
    sizes = Catalogue(lab.access, PROJECT, lab.airlock, lab.dvc).sizes(snapshot_id)
    cache = Cache(tmp_path / "cache")
    cache.fetch(lab.access, lab.dvc, sizes)
    assert dvc_pull(lab, proxy, snapshot_id, cache.root, tmp_path / "laptop") == FILES
    assert contents_fetched(proxy) == 0
    assert cache.fetch(lab.access, lab.dvc, sizes).objects == 0
    assert all(cache.path(md5).stat().st_mode & 0o777 == 0o444 for md5 in sizes)


def test_the_trainer_fetches_nothing_that_a_persons_dvc_has_put_into_the_hosts_cache(
    lab: Lab, proxy: S3Proxy, tmp_path: Path
) -> None:
    snapshot_id = lab.take().snapshot_id or ""
    sizes = Catalogue(lab.access, PROJECT, lab.airlock, lab.dvc).sizes(snapshot_id)
    cache = Cache(tmp_path / "cache")
    assert dvc_pull(lab, proxy, snapshot_id, cache.root, tmp_path / "laptop") == FILES
    assert contents_fetched(proxy) == len(FILES)
    assert cache.fetch(lab.through(proxy.server).access, lab.dvc, sizes).objects == 0
    assert contents_fetched(proxy) == len(FILES)
