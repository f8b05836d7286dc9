"""Puts the demo's pictures into their bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from demo.digits import Digit

AT_A_TIME = 16


def upload(digits: Iterable[Digit], settings: Mapping[str, str]) -> int:
    """Uploads what the bucket lacks and returns how many pictures that were. `settings` is the content of .env."""
    own = settings["COMPOSE_PROFILES"] == ""
    client = boto3.client(
        "s3",
        endpoint_url=settings["S3_ENDPOINT_URL"]
        if own
        else f"http://{settings['AIRLOCK_PUBLIC_HOST']}:{settings['S3_PORT']}",
        aws_access_key_id=settings["S3_ADMIN_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["S3_ADMIN_SECRET_ACCESS_KEY"],
        region_name=settings["S3_REGION"],
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", max_pool_connections=AT_A_TIME),
    )
    bucket = f"{settings['S3_BUCKET_PREFIX']}digits-train"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    there = {row["Key"] for page in pages for row in page.get("Contents", [])}
    missing = [digit for digit in digits if f"{digit.label}/{digit.name}" not in there]

    def put(digit: Digit) -> None:
        client.put_object(Bucket=bucket, Key=f"{digit.label}/{digit.name}", Body=digit.png, ContentType="image/png")

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(put, missing))
    return len(missing)
