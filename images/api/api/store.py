"""Objects of the DVC remotes by their md5, kept in a directory of DVC's own layout."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Literal

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from api import log
from api.errors import ConfigError, DataError, Unavailable
from api.settings import StoreSettings

Remote = Literal["data", "models"]

CHUNK_BYTES = 4 * 1024 * 1024
CONNECT_SECONDS = 5
READ_SECONDS = 30
RETRY_SECONDS = 20


class Store:
    """Reads the DVC bucket; what it hands out has the md5 that was asked for."""

    def __init__(self, settings: StoreSettings) -> None:
        self._where = f"{settings.dvc_bucket} at {settings.s3_endpoint_url}"
        self._bucket = S3Store(
            settings.dvc_bucket,
            endpoint=settings.s3_endpoint_url,
            region=settings.s3_region,
            access_key_id=settings.s3_access_key_id,
            secret_access_key=settings.s3_secret_access_key.get_secret_value(),
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=READ_SECONDS),
                # obstore's default ends a transfer after 30 s, however fast it is still moving.
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )

    def fetch(self, md5: str, remote: Remote, directory: Path) -> Path:
        """The object's file below `directory`, downloaded unless it is there and its bytes are right.

        Raises DataError when the remote has no such object or its bytes have another md5, Unavailable when S3
        cannot be reached, ConfigError when it refuses the keys.
        """
        path = directory / layout(md5)
        found = _md5_of(path)
        if found == md5:
            return path
        if found is not None:
            log.event("stored_file_altered", path=str(path), expected_md5=md5, found_md5=found)
        with self._explained(md5, remote):
            received = self._download(f"{remote}/{layout(md5)}", path, md5)
        if received != md5:
            raise DataError(
                f"The object {remote}/{layout(md5)} of {self._where} has the md5 {received}, not {md5} as its name "
                "promises: it was altered. Nothing was loaded. Put the right bytes back, or train again."
            )
        return path

    def _download(self, key: str, path: Path, md5: str) -> str:
        """Writes the object to `path` if its bytes are right, atomically; returns the md5 of what came."""
        chunks = obstore.get(self._bucket, key).stream(min_chunk_size=CHUNK_BYTES)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
        try:
            with os.fdopen(handle, "wb") as file:
                received = _copy(chunks, file)
                file.flush()
                os.fsync(file.fileno())
            if received == md5:
                # Readable by the trainer too, which shares the cache; never writable, as in DVC's own cache.
                os.chmod(name, 0o444)
                os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        return received

    @contextmanager
    def _explained(self, md5: str, remote: Remote) -> Iterator[None]:
        key = f"{remote}/{layout(md5)}"
        try:
            yield
        except FileNotFoundError as cause:
            if "NoSuchBucket" in str(cause):
                raise ConfigError(
                    f"There is no bucket {self._where}. Check S3_BUCKET_PREFIX and S3_ENDPOINT_URL in .env."
                ) from None
            raise DataError(
                f"{self._where} has no object {key}: it was never pushed, or was deleted. "
                "Put it back with dvc push, or train again."
            ) from None
        except (PermissionDeniedError, UnauthenticatedError) as cause:
            raise ConfigError(
                f"{self._where} refused {key} ({type(cause).__name__}): the keys are wrong or may not read it. "
                "Check AWS_ACCESS_KEY_ID and the rights of this S3 identity."
            ) from None
        except BaseError as cause:
            raise Unavailable(
                f"{key} could not be read from {self._where} ({_first_line(cause)}). "
                "Check that the S3 server runs and can be reached from this container."
            ) from None


def layout(md5: str) -> str:
    """Where DVC keeps the content with this md5, relative to a cache or a remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def _copy(chunks: Iterable[bytes], file: IO[bytes]) -> str:
    """Writes the chunks to `file`; returns their md5."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest()


def _md5_of(path: Path) -> str | None:
    """The md5 of the file; None without one."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except FileNotFoundError:
        return None


def _first_line(cause: BaseException) -> str:
    """The innermost cause as obstore words it; its later lines are a debug dump."""
    return str(cause).strip().splitlines()[0].strip() if str(cause).strip() else type(cause).__name__
