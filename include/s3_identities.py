"""Who may do what in the embedded S3 server.

SeaweedFS reads identities from one JSON file, again at SIGHUP. An action is `<verb>:<bucket>` or
`<verb>:<bucket>/<prefix>*`; `Write` includes deleting. Source: `canDo` in SeaweedFS' `weed/s3api/auth_credentials.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from include.settings import S3Identity, Settings


class Credential(TypedDict):
    """One pair of keys, in SeaweedFS' spelling."""

    accessKey: str
    secretKey: str


class Identity(TypedDict):
    """One identity of SeaweedFS' `identities` list."""

    name: str
    credentials: list[Credential]
    actions: list[str]


def actions(settings: Settings, train_buckets: Iterable[str]) -> dict[str, list[str]]:
    """The rights of each role; `train_buckets` are full names.

    The trainer cannot touch releases, the API can only read weights, Airflow lists pictures but cannot read them.
    """
    records, dvc, mlflow = settings.records_bucket, settings.dvc_bucket, settings.mlflow_bucket
    buckets = sorted(train_buckets)
    return {
        "admin": ["Admin"],
        "airflow": [
            *(f"List:{bucket}" for bucket in buckets),
            f"Read:{records}", f"List:{records}", f"Write:{records}",
            f"Read:{dvc}/models/*",
        ],
        "trainer": [
            *(f"{verb}:{bucket}" for bucket in buckets for verb in ("Read", "List")),
            f"Read:{dvc}", f"List:{dvc}", f"Write:{dvc}",
            f"Read:{records}/snapshots/*", f"Write:{records}/snapshots/*", f"List:{records}",
        ],
        "api": [f"Read:{dvc}/models/*"],
        "mlflow": [f"Read:{mlflow}", f"List:{mlflow}", f"Write:{mlflow}"],
    }  # fmt: skip


def document(keys: Mapping[str, S3Identity], rights: Mapping[str, list[str]]) -> dict[str, list[Identity]]:
    """SeaweedFS' identities file. `keys` and `rights` have the same roles."""
    return {
        "identities": [
            Identity(
                name=role,
                credentials=[Credential(accessKey=keys[role].access_key_id, secretKey=keys[role].secret_access_key)],
                actions=rights[role],
            )
            for role in rights
        ]
    }
