"""Keeps snapshots and the removal of old contents apart: both may go on, and nothing that is recorded is removed.

One object counts the removals. A snapshot reads the count before it looks what the remote has, and again between its
claim and its record: where it has changed, it begins anew. A removal raises the count before it looks at claims and
records. So of a snapshot that is about to be recorded, either it sees the removal, or the removal sees its claim.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from trainer import s3
from trainer.claims import REFUSED
from trainer.errors import UnavailableError
from trainer.s3 import S3Access

KEY = "snapshots/_sweep.json"
LASTS_SECONDS = 3600.0
"""How long one removal may go on; one that was killed is over then."""
MARGIN_SECONDS = 60.0
"""Before that end nothing more is removed: clocks differ, and requests take their time."""


@dataclass(frozen=True)
class Fence:
    """How many removals there were, and when the last one is over (seconds since the epoch; 0: it is)."""

    number: int = 0
    until: float = 0.0

    def goes_on(self, now: float) -> bool:
        """Whether a removal may be under way."""
        return now < self.until


class Swept(Exception):
    """Old contents were removed meanwhile, maybe some that were taken for granted."""


def quiet(access: S3Access, bucket: str) -> Fence:
    """The count while nothing is being removed. Raises `UnavailableError` while something is."""
    fence, _ = _read(access, bucket)
    if fence.goes_on(time.time()):
        raise UnavailableError(
            "airlock__housekeeping is removing old contents, beside which no snapshot is taken. "
            f"It is over by {time.strftime('%H:%M:%S', time.gmtime(fence.until))} UTC; try again then."
        )
    return fence


def require(access: S3Access, bucket: str, fence: Fence) -> None:
    """Raise `Swept` where the count is no longer this one."""
    if _read(access, bucket)[0].number != fence.number:
        raise Swept


def begin(access: S3Access, bucket: str) -> Fence:
    """Raise the count. Raises `UnavailableError` where another removal is under way, or begins at the same time."""
    former, etag = _read(access, bucket)
    now = time.time()
    if former.goes_on(now):
        raise UnavailableError("another removal of old contents is under way. Try again when it is over.")
    fence = Fence(former.number + 1, now + LASTS_SECONDS)
    _write(access, bucket, fence, {"IfMatch": etag} if etag else {"IfNoneMatch": "*"})
    return fence


def end(access: S3Access, bucket: str, fence: Fence) -> None:
    """The removal is over."""
    _write(access, bucket, Fence(fence.number), {})


def _read(access: S3Access, bucket: str) -> tuple[Fence, str | None]:
    with s3.translated(f"reading {bucket}/{KEY}"):
        try:
            answer = s3.client(access).get_object(Bucket=bucket, Key=KEY)
            return Fence(**json.loads(answer["Body"].read())), str(answer["ETag"])
        except ClientError as failure:
            if s3.error_code(failure) != "NoSuchKey":
                raise
            return Fence(), None


def _write(access: S3Access, bucket: str, fence: Fence, condition: dict[str, Any]) -> None:
    body = json.dumps(asdict(fence)).encode()
    with s3.translated(f"writing {bucket}/{KEY}"):
        try:
            s3.client(access).put_object(Bucket=bucket, Key=KEY, Body=body, **condition)
        except ClientError as failure:
            if s3.error_code(failure) not in REFUSED:
                raise
            raise UnavailableError("another removal of old contents has begun at this moment. Try again.") from failure
