"""Whether an ETag can be taken for an md5."""

from __future__ import annotations

from typing import Any

import pytest
from trainer.hashing import etag_is_md5


@pytest.mark.parametrize(
    ("head", "is_md5"),
    [
        ({}, True),
        ({"ServerSideEncryption": "AES256"}, True),
        ({"ServerSideEncryption": "aws:kms"}, False),
        ({"ServerSideEncryption": "aws:kms:dsse"}, False),
        ({"SSECustomerAlgorithm": "AES256"}, False),
    ],
)
def test_an_etag_is_an_md5_unless_the_object_is_encrypted_with_a_key(head: dict[str, Any], is_md5: bool) -> None:
    assert etag_is_md5(head) is is_md5
