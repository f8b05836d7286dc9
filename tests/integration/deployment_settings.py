"""A deployment's settings for tests, on servers of their own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from include.settings import S3Identity, Settings


def deployment_settings(s3_endpoint_url: str, keys: Mapping[str, S3Identity], **others: Any) -> Settings:
    """Settings with a bucket prefix that nobody else has; a role without keys has the administrator's."""
    identities = {
        f"s3_{role}_{name}": value
        for role in ("admin", "airflow", "trainer", "api")
        for identity in [keys.get(role, keys["admin"])]
        for name, value in (
            ("access_key_id", identity.access_key_id),
            ("secret_access_key", SecretStr(identity.secret_access_key)),
        )
    }
    return Settings.model_validate(
        {
            "s3_endpoint_url": s3_endpoint_url,
            "s3_bucket_prefix": f"d{uuid.uuid4().hex[:6]}-",
            "mlflow_url": "http://mlflow:5000",
            "mlflow_public_url": "http://127.0.0.1:5000",
            "docker_url": "tcp://docker-gate:2375",
            "front_url": "http://haproxy:8000",
            **identities,
            **others,
        }
    )
