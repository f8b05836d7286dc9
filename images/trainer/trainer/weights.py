"""Locks files with DVC: one push to the remote `models`, then every object is read back."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from botocore.exceptions import BotoCoreError, ClientError
from dvc.exceptions import DvcException
from dvc.repo import Repo

from trainer.directory import content_path
from trainer.errors import UnavailableError
from trainer.s3 import S3Access, client, translated

log = logging.getLogger(__name__)

REMOTE = "models"
CHUNK_BYTES = 1 << 20


def lock(s3: S3Access, dvc_bucket: str, folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Push the files `names` of `folder` with DVC; the md5 of each, as its `.dvc` file says.

    Raises:
        UnavailableError: the push failed, or an object in the store is not what was pushed.
    """
    try:
        _push(s3, dvc_bucket, folder, names)
    except (DvcException, BotoCoreError, ClientError, OSError) as error:
        cause = error.__cause__ or error
        raise UnavailableError(
            f"DVC could not push {', '.join(names)} to s3://{dvc_bucket}/{REMOTE}: {type(cause).__name__}: {cause}. "
            "Is S3 up, and may the trainer's key write there?"
        ) from error
    md5s = {name: _md5_of_pointer(folder / f"{name}.dvc") for name in names}
    _read_back(s3, dvc_bucket, md5s)
    log.info("weights.locked %s", " ".join(f"{name}={md5}" for name, md5 in md5s.items()))
    return md5s


def _push(s3: S3Access, dvc_bucket: str, folder: Path, names: Sequence[str]) -> None:
    with Repo.init(str(folder), no_scm=True, force=True) as repo, repo.config.edit("local") as config:
        config["core"] = {"remote": REMOTE, "check_update": False}
        config["remote"] = {
            REMOTE: {"url": f"s3://{dvc_bucket}/{REMOTE}", "endpointurl": s3.endpoint_url, "region": s3.region}
        }
    with Repo(str(folder)) as repo:  # opened anew: this is how the configuration above is read
        repo.add([str(folder / name) for name in names])
        repo.push(remote=REMOTE)


def _md5_of_pointer(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["outs"][0]["md5"])


def _read_back(s3: S3Access, bucket: str, md5s: Mapping[str, str]) -> None:
    connection = client(s3)
    for name, md5 in md5s.items():
        key = f"{REMOTE}/{content_path(md5)}"
        digest = hashlib.md5(usedforsecurity=False)
        with translated(f"reading back s3://{bucket}/{key} ({name})"):
            for chunk in connection.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(CHUNK_BYTES):
                digest.update(chunk)
        if digest.hexdigest() != md5:
            raise UnavailableError(
                f"s3://{bucket}/{key} ({name}) was pushed but its content has the md5 {digest.hexdigest()}. "
                "The store altered it: remove that object and let the task be retried."
            )
