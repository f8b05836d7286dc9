"""Signed S3 requests over connections that stay open: a fifth of boto3's work for each, where there are very many.

Signature Version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from trainer.s3 import CONNECT_SECONDS, RETRIES, S3Access, S3Failure

ANSWER_SECONDS = 300
"""A server may copy 5 GB before it answers."""
FIRST_PAUSE_SECONDS = 0.2
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNRESERVED = "/-_.~"
PASSING_CODES = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"})
SERVER_ERROR = 500


@dataclass
class SignedRequests:
    """Sends requests without a body; safe to share between threads, each of which has its own connection."""

    access: S3Access
    _threads: threading.local = field(default_factory=threading.local, init=False, repr=False)

    def send(self, method: str, bucket: str, key: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a request, again after a passing failure. Raises `S3Failure`, also for an error in an answer of 200."""
        path = f"{self._address.path.rstrip('/')}/{bucket}/{quoted(key)}"
        for attempt in range(RETRIES + 1):
            try:
                return self._once(method, path, headers or {})
            except S3Failure as failure:
                if attempt == RETRIES or not failure.passing:
                    raise
            time.sleep(random.uniform(0.5, 1) * FIRST_PAUSE_SECONDS * 2**attempt)  # noqa: S311

    def _once(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        connection = self._connection()
        all_headers = signed(self.access, self._address.netloc, method, path, headers, time.gmtime())
        try:
            connection.request(method, path, headers={**all_headers, "content-length": "0"})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as cause:
            connection.close()
            raise S3Failure("", str(cause) or type(cause).__name__, passing=True) from cause
        # A copy may fail after its 200 has been sent.
        if answer.status >= 300 or b"<Error>" in body:
            raise _failure(answer.status, body.decode(errors="replace"))

    def _connection(self) -> HTTPConnection:
        connection: HTTPConnection | None = getattr(self._threads, "connection", None)
        if connection is None:
            host, port = self._address.hostname or "", self._address.port
            if self._address.scheme == "https":
                context = ssl.create_default_context()
                connection = HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=context)
            else:
                connection = HTTPConnection(host, port, timeout=CONNECT_SECONDS)
            self._threads.connection = connection
        if connection.sock is None:
            try:
                connection.connect()
            except OSError as cause:
                raise S3Failure("", str(cause) or type(cause).__name__, passing=True) from cause
            opened: Any = connection.sock
            opened.settimeout(ANSWER_SECONDS)
        return connection

    @cached_property
    def _address(self) -> SplitResult:
        return urlsplit(self.access.endpoint_url)


def quoted(key: str) -> str:
    """A key as it stands in a path, and in the header that names the source of a copy."""
    return quote(key, safe=UNRESERVED)


def signed(
    access: S3Access, host: str, method: str, path: str, headers: Mapping[str, str], now: time.struct_time
) -> dict[str, str]:
    """All headers of a request without body and query, signed; `headers` have names in lower case."""
    at = time.strftime("%Y%m%dT%H%M%SZ", now)
    day = at[:8]
    every = {**headers, "host": host, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": at}
    names = sorted(every)
    listed = ";".join(names)
    lines = "".join(f"{name}:{every[name]}\n" for name in names)
    request = f"{method}\n{path}\n\n{lines}\n{listed}\n{EMPTY_SHA256}"
    scope = f"{day}/{access.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(access, day), text.encode(), "sha256").hex()
    every["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access.access_key_id}/{scope}, SignedHeaders={listed}, Signature={signature}"
    )
    return every


@lru_cache(maxsize=4)
def _signing_key(access: S3Access, day: str) -> bytes:
    key = f"AWS4{access.secret_access_key}".encode()
    for part in (day, access.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _failure(status: int, body: str) -> S3Failure:
    def tag(name: str) -> str:
        found = re.search(f"<{name}>([^<]*)</{name}>", body)
        return found.group(1) if found else ""

    code = tag("Code") or str(status)
    return S3Failure(
        code, tag("Message") or f"status {status}", passing=status >= SERVER_ERROR or code in PASSING_CODES
    )
