"""Access to S3: boto3 for single calls and copies, obstore for listings and parallel reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import S3Store

from trainer.errors import ConfigError, TrainerError, UnavailableError

CONNECT_SECONDS = 5
READ_SECONDS = 60
"""How long nothing may arrive before a transfer counts as stalled."""
TRANSFER_SECONDS = 3600
"""How long a transfer may take that never stalls: a large object over a slow line, beside 31 others."""
RETRIES = 4
RETRY_SECONDS = 60
FIRST_PAUSE = timedelta(seconds=0.3)
THREADS = 32
"""Requests in flight at once: more gain nothing on the servers that were measured."""

WRONG_SETTINGS = {
    "403": "the key has no right to it",  # the answer to a HEAD has no code
    "AccessDenied": "the key has no right to it",
    "AccountProblem": "the account is blocked",
    "AuthorizationHeaderMalformed": "the region or the key is wrong",
    "InvalidAccessKeyId": "the access key is not known to the server",
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "the bucket lies in another region or behind another address",
    "RequestTimeTooSkewed": "the clocks of this host and of the S3 server differ",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


@dataclass(frozen=True)
class S3Access:
    """Where the S3 server is and the keys for it; the secret is in no repr."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"

    def __post_init__(self) -> None:
        # obstore panics on an address that is none.
        parts = urlsplit(self.endpoint_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", self.endpoint_url):
            raise ConfigError(
                f"S3_ENDPOINT_URL is {self.endpoint_url!r}, which is no address: write it as http://host:port"
            )


def client(access: S3Access) -> Any:
    """A boto3 client with pooled connections and bounded timeouts; safe to share between threads."""
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint_url,
        aws_access_key_id=access.access_key_id,
        aws_secret_access_key=access.secret_access_key,
        region_name=access.region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": RETRIES + 1},
            max_pool_connections=THREADS,
        ),
    )


def store(access: S3Access, bucket: str, prefix: str | None = None) -> S3Store:
    """An obstore view of a bucket, or of a prefix in it."""
    return S3Store(
        bucket,
        prefix=prefix,
        endpoint=access.endpoint_url,
        access_key_id=access.access_key_id,
        secret_access_key=access.secret_access_key,
        region=access.region,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=READ_SECONDS),
            # Of the whole transfer, however fast it is still moving.
            "timeout": timedelta(seconds=TRANSFER_SECONDS),
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            # Its own default gives up within a second.
            "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": timedelta(seconds=10), "base": 2.0},
        },
    )


class S3Failure(Exception):
    """An S3 server's refusal, or no answer from it.

    `code` is S3's own, for instance `NoSuchKey`; the status where an answer has none, as to a HEAD; empty without an
    answer. `passing` says that it may not fail again.
    """

    def __init__(self, code: str, message: str, *, passing: bool) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.passing = passing


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the S3 clients raise while doing `what` into an error that names it, the cause and the next step."""
    try:
        yield
    except ClientError as failure:
        raise _explained(what, error_code(failure), str(failure)) from failure
    except S3Failure as failure:
        raise _explained(what, failure.code, str(failure)) from failure
    except BotoCoreError as failure:
        raise _explained(what, "", str(failure)) from failure
    except (BaseError, FileNotFoundError) as failure:
        # Only the first line: the rest is obstore's internal state.
        raise _explained(what, _code_in(failure), str(failure).splitlines()[0]) from failure


def error_code(failure: ClientError) -> str:
    """S3's own code of an error, for instance `NoSuchKey`."""
    return str(failure.response.get("Error", {}).get("Code", ""))


def _code_in(failure: Exception) -> str:
    if code := re.search(r"<Code>(\w+)</Code>", str(failure)):
        return code.group(1)
    return "403" if isinstance(failure, PermissionDeniedError) else ""


def _explained(what: str, code: str, cause: str) -> TrainerError:
    if code in WRONG_SETTINGS:
        return ConfigError(f"S3: {what} was refused ({code}): {WRONG_SETTINGS[code]}. Check the bucket and the keys.")
    return UnavailableError(f"S3: {what} failed: {cause}. Is the server up and reachable from here?")
