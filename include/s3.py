"""Objects in a bucket: read, written by compare-and-set, hashed while they stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from include.settings import S3Identity, Settings

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
ATTEMPTS = 4

PRECONDITION_FAILED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
NOT_FOUND = frozenset({"NoSuchKey", "404", "NotFound"})


class StorageError(Exception):
    """The S3 server could not be asked, or refused."""


class ObjectChanged(Exception):
    """The object is no longer the one that was read."""


@dataclass(frozen=True)
class Stored:
    """An object as it was when it was read."""

    body: bytes
    etag: str


def client(settings: Settings, identity: S3Identity) -> Any:
    """A boto3 client of the deployment's S3 server."""
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=identity.access_key_id,
        aws_secret_access_key=identity.secret_access_key,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        ),
    )


class Bucket:
    """One bucket. Every method raises StorageError where the server cannot be asked or refuses."""

    def __init__(self, s3_client: Any, name: str) -> None:
        self.name = name
        self._client = s3_client

    def read(self, key: str) -> Stored | None:
        """The object, or None where there is none."""
        try:
            with self._asked("reading", key):
                answer = self._client.get_object(Bucket=self.name, Key=key)
                return Stored(answer["Body"].read(), answer["ETag"])
        except _Missing:
            return None

    def create(self, key: str, body: bytes) -> str:
        """Write a new object; returns its ETag. Raises ObjectChanged where another one is there already."""
        return self._put(key, body, IfNoneMatch="*")

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Write over the object that had this ETag; returns the new one. Raises ObjectChanged where it has another."""
        return self._put(key, body, IfMatch=etag)

    def md5(self, key: str) -> str | None:
        """The md5 of an object's bytes as they are now, streamed; None where there is none. Never the ETag's word."""
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with self._asked("reading", key):
                for chunk in self._client.get_object(Bucket=self.name, Key=key)["Body"].iter_chunks(CHUNK_BYTES):
                    digest.update(chunk)
        except _Missing:
            return None
        return digest.hexdigest()

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`, in the server's order."""
        with self._asked("listing", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            return [str(row["Key"]) for page in pages for row in page.get("Contents", ())]

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with self._asked("deleting", key):
            self._client.delete_object(Bucket=self.name, Key=key)

    def _put(self, key: str, body: bytes, **condition: str) -> str:
        try:
            with self._asked("writing", key):
                return str(self._client.put_object(Bucket=self.name, Key=key, Body=body, **condition)["ETag"])
        except (_Refused, _Missing):
            # A retried request may have met its own first try: what was to be written is there.
            there = self.read(key)
            if there is not None and there.body == body:
                return there.etag
            raise ObjectChanged(f"s3://{self.name}/{key} was changed by another process meanwhile") from None

    @contextmanager
    def _asked(self, doing: str, key: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in NOT_FOUND:
                raise _Missing from None
            if code in PRECONDITION_FAILED:
                raise _Refused from None
            raise StorageError(
                f"{doing} s3://{self.name}/{key} was refused ({code}): check the bucket and the identity's rights"
            ) from error
        except BotoCoreError as error:
            raise StorageError(
                f"{doing} s3://{self.name}/{key} failed ({error}): is the S3 server up? try again when it is"
            ) from error


class _Missing(Exception):
    """There is no such object."""


class _Refused(Exception):
    """The condition of a write does not hold."""
