"""A project's buckets on a real S3 server, and the trainer's access to them."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from trainer import snapshot
from trainer.catalogue import DATA_REMOTE
from trainer.directory import content_path
from trainer.s3 import S3Access
from trainer.snapshot import SnapshotResult

from tests.integration.s3_servers import S3Server

PROJECT = "pets"


@dataclass(frozen=True)
class Lab:
    """Three fresh buckets and what a test does with them."""

    server: S3Server
    client: Any
    train: str
    airlock: str
    dvc: str

    @classmethod
    def on(cls, server: S3Server) -> Lab:
        """Buckets of their own on a server."""
        client = server.client()
        names = [f"{word}-{uuid.uuid4().hex[:8]}" for word in ("train", "airlock", "dvc")]
        for name in names:
            client.create_bucket(Bucket=name)
        return cls(server, client, *names)

    def through(self, server: S3Server) -> Lab:
        """The same buckets at another address, or with other keys."""
        return replace(self, server=server, client=server.client())

    @property
    def access(self) -> S3Access:
        """The trainer's access."""
        server = self.server
        return S3Access(server.endpoint_url, server.access_key_id, server.secret_access_key, server.region)

    def put(self, key: str, body: bytes) -> None:
        """A person uploads a picture."""
        self.client.put_object(Bucket=self.train, Key=key, Body=body)

    def put_in_parts(self, key: str, body: bytes) -> None:
        """A person uploads a picture in parts, so that its ETag is no md5."""
        upload = self.client.create_multipart_upload(Bucket=self.train, Key=key)["UploadId"]
        where = {"Bucket": self.train, "Key": key, "UploadId": upload}
        tag = self.client.upload_part(**where, PartNumber=1, Body=body)["ETag"]
        self.client.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": 1}]})

    def delete(self, key: str) -> None:
        """A person deletes a picture."""
        self.client.delete_object(Bucket=self.train, Key=key)

    def take(self, expected_digest: str = "") -> SnapshotResult:
        """Take a snapshot."""
        return snapshot.take(self.access, **self.environment(), expected_digest=expected_digest, triggered_by="a test")

    def taking(self) -> BaseProcess:
        """A process of its own that takes a snapshot; not started yet."""
        context = get_context("forkserver")
        context.set_forkserver_preload([snapshot.__name__])  # its imports take most of the time
        return context.Process(target=_take, args=(self.server, self.train, self.airlock, self.dvc))

    def environment(self) -> dict[str, str]:
        """The names that every command is given."""
        buckets = {"train_bucket": self.train, "airlock_bucket": self.airlock, "dvc_bucket": self.dvc}
        return {"project": PROJECT, **buckets}

    def pin(self, *bodies: bytes) -> None:
        """Put contents into the DVC remote."""
        for body in bodies:
            self.client.put_object(Bucket=self.dvc, Key=content_key(md5(body)), Body=body)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def read(self, bucket: str, key: str) -> bytes:
        """An object's bytes."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def record(self, snapshot_id: str | None) -> dict[str, Any]:
        """The record of a snapshot."""
        record: dict[str, Any] = json.loads(self.read(self.airlock, f"snapshots/{PROJECT}/{snapshot_id}.json"))
        return record


def _take(server: S3Server, *buckets: str) -> None:
    Lab(server, server.client(), *buckets).take()


def md5(content: bytes) -> str:
    """What DVC and Airlock name a content by."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def content_key(digest: str) -> str:
    """Where a content lies in the bucket `dvc`."""
    return f"{DATA_REMOTE}/{content_path(digest)}"


def write_tree(root: Path, files: dict[str, bytes]) -> None:
    """The same files as a folder on a laptop."""
    for relpath, body in files.items():
        path = root / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
