"""Signed requests: as botocore signs them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from unittest import mock

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from trainer.s3 import S3Access
from trainer.signed import quoted, signed

ACCESS = S3Access("http://127.0.0.1:9000", "someone", "a-secret-key", "eu-central-1")
NOW = datetime(2026, 11, 25, 1, 2, 3, tzinfo=UTC)


@given(key=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), source=st.text("aä /+%?#", min_size=1))
def test_a_signature_is_botocores_for_any_key(key: str, source: str) -> None:
    headers = {"x-amz-copy-source": quoted(f"pets/{source}"), "x-amz-copy-source-if-match": '"abc"'}
    path = f"/dvc/{quoted(key)}"
    request = AWSRequest("PUT", f"{ACCESS.endpoint_url}{path}", headers=headers)
    credentials = Credentials(ACCESS.access_key_id, ACCESS.secret_access_key)
    with mock.patch.object(auth, "get_current_datetime", return_value=NOW):
        auth.S3SigV4Auth(credentials, "s3", ACCESS.region).add_auth(request)
    ours = signed(ACCESS, "127.0.0.1:9000", "PUT", path, headers, NOW.timetuple())
    assert ours["authorization"] == request.headers["Authorization"]
    assert time.strftime("%Y%m%dT%H%M%SZ", NOW.timetuple()) == ours["x-amz-date"]
