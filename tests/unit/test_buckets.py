"""Answers of S3 servers that none of ours gives: Amazon's regions, and names that are taken."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from include.buckets import ensure_buckets
from include.s3 import StorageError


def client(region: str) -> tuple[Any, Stubber]:
    s3 = boto3.client("s3", region_name=region, aws_access_key_id="id", aws_secret_access_key="secret")
    return s3, Stubber(s3)


@pytest.mark.parametrize(
    ("region", "where"),
    [
        ("us-east-1", {}),
        ("eu-central-1", {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}),
    ],
)
def test_a_bucket_is_made_in_the_region_of_the_settings(region: str, where: dict[str, Any]) -> None:
    s3, stub = client(region)
    stub.add_client_error("head_bucket", http_status_code=404)
    stub.add_response("create_bucket", {}, {"Bucket": "airlock", **where})
    with stub:
        assert ensure_buckets(s3, ["airlock"]) == ["airlock"]


def test_somebody_elses_bucket_is_not_taken_for_ours() -> None:
    s3, stub = client("us-east-1")
    stub.add_client_error("head_bucket", http_status_code=403)
    stub.add_client_error("create_bucket", "BucketAlreadyExists", http_status_code=409)
    with stub, pytest.raises(StorageError, match=r"bucket airlock is somebody else's, or hidden .* S3_BUCKET_PREFIX"):
        ensure_buckets(s3, ["airlock"])


def test_a_bucket_that_another_made_meanwhile_is_there() -> None:
    s3, stub = client("us-east-1")
    stub.add_client_error("head_bucket", http_status_code=404)
    stub.add_client_error("create_bucket", "BucketAlreadyOwnedByYou", http_status_code=409)
    with stub:
        assert ensure_buckets(s3, ["airlock"]) == []
