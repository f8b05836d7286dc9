"""The buckets of the deployment, and whether its S3 server writes conditionally."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from include.s3 import Bucket, ObjectChanged, StorageError

OURS, SOMEBODYS = "BucketAlreadyOwnedByYou", "BucketAlreadyExists"
# The one region that a request for a bucket must not name.
DEFAULT_REGION = "us-east-1"
FORBIDDEN = 403


def ensure_buckets(s3_client: Any, names: Iterable[str]) -> list[str]:
    """Create the buckets that are missing; returns them. Raises StorageError naming all that cannot be had."""
    created: list[str] = []
    problems: list[str] = []
    for name in names:
        try:
            if _create(s3_client, name):
                created.append(name)
        except StorageError as error:
            problems.append(str(error))
    if problems:
        raise StorageError("\n".join(problems))
    return created


def _create(s3_client: Any, name: str) -> bool:
    try:
        s3_client.head_bucket(Bucket=name)
    except ClientError as error:
        # Missing, or hidden: creating it tells which.
        hidden = error.response["ResponseMetadata"]["HTTPStatusCode"] == FORBIDDEN
    except BotoCoreError as error:
        raise StorageError(f"bucket {name}: the S3 server does not answer ({error}); is it up?") from error
    else:
        return False
    try:
        region = s3_client.meta.region_name
        where = {} if region == DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3_client.create_bucket(Bucket=name, **where)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code == OURS or (code == SOMEBODYS and not hidden):  # made meanwhile
            return False
        if code == SOMEBODYS:
            raise StorageError(
                f"bucket {name} is somebody else's, or hidden from the set-up identity: set S3_BUCKET_PREFIX in .env, "
                "or let the identity read it"
            ) from error
        if hidden:
            raise StorageError(
                f"bucket {name} is missing, or hidden from the set-up identity, and may not be created ({code}): "
                "create it where it is missing, and let the identity read it"
            ) from error
        raise StorageError(
            f"bucket {name} is not there and may not be created ({code}): create it, or allow the set-up identity to"
        ) from error
    except BotoCoreError as error:
        raise StorageError(f"bucket {name}: the S3 server does not answer ({error}); is it up?") from error
    return True


def writes_conditionally(bucket: Bucket) -> bool:
    """Whether the server honours If-None-Match and If-Match, found by trying on an object of its own."""
    key = f"releases/.probe/{uuid.uuid4()}"
    try:
        etag = bucket.create(key, b"first")
        return (
            _refused(lambda: bucket.create(key, b"second"))
            and _refused(lambda: bucket.replace(key, b"third", '"00000000000000000000000000000000"'))
            and bool(bucket.replace(key, b"fourth", etag))
        )
    finally:
        bucket.delete(key)


def _refused(write: Any) -> bool:
    try:
        write()
    except ObjectChanged:
        return True
    return False
