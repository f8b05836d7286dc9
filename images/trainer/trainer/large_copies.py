"""Copies inside the server of objects that are too large for one CopyObject."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from trainer import parallel, s3
from trainer.listing import Row
from trainer.s3 import S3Access, S3Failure

LARGEST_COPY_BYTES = 5_000_000_000
PART_BYTES = 256 << 20
THREADS = 4
ABANDONED_AFTER = timedelta(days=1)
"""No copy of ours takes longer: an unfinished one that is older was left by a killed process."""

log = logging.getLogger(__name__)


def copy(access: S3Access, bucket: str, source: Row, dvc_bucket: str, key: str) -> None:
    """Copy an object in parts, each only where the source is still the listed one. Raises `S3Failure`."""
    client = s3.client(access)
    try:
        _abort_abandoned(client, dvc_bucket, key)
        upload = client.create_multipart_upload(Bucket=dvc_bucket, Key=key)["UploadId"]
        where = {"Bucket": dvc_bucket, "Key": key, "UploadId": upload}
        try:
            parts = _parts(client, bucket, source, where)
            client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
        except BaseException:
            client.abort_multipart_upload(**where)
            raise
    except ClientError as failure:
        raise S3Failure(s3.error_code(failure), str(failure), passing=False) from failure


def _parts(client: Any, bucket: str, source: Row, where: dict[str, str]) -> list[dict[str, Any]]:
    def part(number: int) -> dict[str, Any]:
        first = (number - 1) * PART_BYTES
        last = min(first + PART_BYTES, source.size) - 1
        done = client.upload_part_copy(
            **where,
            PartNumber=number,
            CopySource={"Bucket": bucket, "Key": source.key},
            CopySourceIfMatch=f'"{source.etag}"',
            CopySourceRange=f"bytes={first}-{last}",
        )
        log.info("copied key=%s part=%d bytes=%d of=%d", source.key, number, last + 1 - first, source.size)
        return {"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]}

    numbers = range(1, -(-source.size // PART_BYTES) + 1)
    return sorted(parallel.unordered(part, numbers, THREADS), key=lambda done: int(done["PartNumber"]))


def _abort_abandoned(client: Any, dvc_bucket: str, key: str) -> None:
    """End what a killed process began: its parts take room that no listing shows."""
    for upload in client.list_multipart_uploads(Bucket=dvc_bucket, Prefix=key).get("Uploads", []):
        if upload["Key"] == key and datetime.now(UTC) - upload["Initiated"] > ABANDONED_AFTER:
            client.abort_multipart_upload(Bucket=dvc_bucket, Key=key, UploadId=upload["UploadId"])
