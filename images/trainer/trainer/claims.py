"""Which snapshot a project gets next, so that of several snapshotters one writes it.

One object for each project names the snapshot that is being written and its parent. It is changed by compare-and-set
on its ETag. A killed snapshotter's claim on the same content is taken over with its id; on other content it is
replaced. Where the server does not write conditionally, a pool of one slot keeps snapshotters apart.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from trainer import s3
from trainer.catalogue import Catalogue, claim_key

REFUSED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"})


@dataclass(frozen=True)
class Claim:
    """A snapshot that is being written: its id, its parent's, and the name of its directory object."""

    id: str
    parent: str | None
    md5: str


class Overtaken(Exception):
    """Another snapshot has become the newest, or is about to."""


def stake(catalogue: Catalogue, wanted: Claim) -> tuple[Claim, Claim | None]:
    """The claim that now holds for `wanted`, and the dead one that it replaced.

    It has another id where its content was claimed before. Raises `Overtaken` where the parent is no longer the newest.
    """
    while True:
        held, etag = _read(catalogue)
        dead = None
        if held is not None and held.parent == wanted.parent:
            if held.md5 == wanted.md5:
                return held, None
            if catalogue.has(held.id):
                raise Overtaken(held.id)
            dead = held
        elif held is not None and held.id > (wanted.parent or "") and catalogue.has(held.id):
            raise Overtaken(held.id)
        if _write(catalogue, wanted, etag):
            return wanted, dead


def require(catalogue: Catalogue, claim: Claim) -> None:
    """Raise `Overtaken` where a claim no longer holds."""
    held, _ = _read(catalogue)
    if held != claim:
        raise Overtaken(held.id if held else "nobody")


def _read(catalogue: Catalogue) -> tuple[Claim | None, str | None]:
    key = claim_key(catalogue.project)
    with s3.translated(f"reading {catalogue.airlock_bucket}/{key}"):
        try:
            answer = s3.client(catalogue.access).get_object(Bucket=catalogue.airlock_bucket, Key=key)
            content, etag = answer["Body"].read(), str(answer["ETag"])
        except ClientError as failure:
            if s3.error_code(failure) != "NoSuchKey":
                raise
            return None, None
    try:
        return Claim(**json.loads(content)), etag
    except (TypeError, ValueError):
        return None, etag  # nobody's: it is replaced


def _write(catalogue: Catalogue, claim: Claim, etag: str | None) -> bool:
    """Whether the claim was written; False where another was quicker."""
    condition: dict[str, Any] = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    key = claim_key(catalogue.project)
    body = json.dumps(asdict(claim)).encode()
    with s3.translated(f"writing {catalogue.airlock_bucket}/{key}"):
        try:
            s3.client(catalogue.access).put_object(Bucket=catalogue.airlock_bucket, Key=key, Body=body, **condition)
        except ClientError as failure:
            if s3.error_code(failure) not in REFUSED:
                raise
            return False
    return True
