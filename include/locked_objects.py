"""What DVC has locked: objects of the remote `models`, found by their md5 and checked against it."""

from __future__ import annotations

import hashlib
from typing import Protocol

from include.s3 import Stored
from include.settings import MODELS_REMOTE


class LockError(Exception):
    """A locked object is missing, or its bytes are no longer those that were locked."""


class ReadableBucket(Protocol):
    """What is needed of a bucket; include.s3.Bucket has it."""

    name: str

    def read(self, key: str) -> Stored | None:
        """The object, or None."""
        ...

    def md5(self, key: str) -> str | None:
        """The md5 of the object's bytes as they are now, or None."""
        ...


class LockedObjects:
    """The remote `models` in its bucket."""

    def __init__(self, bucket: ReadableBucket) -> None:
        self._bucket = bucket

    def address(self, md5: str) -> str:
        """The object's `s3://` address."""
        return f"s3://{self._bucket.name}/{_key(md5)}"

    def verify(self, what: str, md5: str) -> None:
        """Hash the object anew. Raises LockError where it is missing or altered; `what` is named in it."""
        self._compare(what, md5, self._bucket.md5(_key(md5)))

    def read(self, what: str, md5: str) -> bytes:
        """The object's bytes, of this md5. Raises LockError where it is missing or altered."""
        stored = self._bucket.read(_key(md5))
        found = None if stored is None else hashlib.md5(stored.body, usedforsecurity=False).hexdigest()
        self._compare(what, md5, found)
        return stored.body if stored is not None else b""

    def _compare(self, what: str, md5: str, found: str | None) -> None:
        if found is None:
            raise LockError(f"the {what} object {self.address(md5)} is missing from the store: run the training again")
        if found != md5:
            raise LockError(
                f"the {what} object was altered in the store: {self.address(md5)} has the md5 {found}; find out who "
                "writes there, then run the training again"
            )


def _key(md5: str) -> str:
    return f"{MODELS_REMOTE}/files/md5/{md5[:2]}/{md5[2:]}"
