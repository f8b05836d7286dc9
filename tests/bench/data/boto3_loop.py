"""The loop that people write: every key of a paginator, one `download_file` after the other."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import boto3


def main() -> None:
    """Downloads the bucket of the first argument into the directory of the second."""
    bucket, directory = sys.argv[1], Path(sys.argv[2])
    s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"], region_name=os.environ["AWS_REGION"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page.get("Contents", []):
            target = directory / each["Key"]
            target.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, each["Key"], str(target))


if __name__ == "__main__":
    main()
