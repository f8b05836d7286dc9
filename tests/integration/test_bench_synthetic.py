"""The synthetic server of the benchmarks answers as a real one does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import obstore
import pytest
from botocore.exceptions import ClientError
from trainer import parallel, s3
from trainer.s3 import S3Access

from tests.bench.data import synthetic
from tests.bench.data.million import running
from tests.integration.dataset_lab import Lab
from tests.integration.s3_servers import S3Server

# No name is a folder's with a character below "/" after it: SeaweedFS lists `a/x` before `a.jpg`, S3 after it.
KEYS = [
    *(f"class-{number % 5}/picture {number:04d}.jpg" for number in range(2_490)),
    *(
        "a/ü.jpg",
        "a/b/c.jpg",
        "a/b/d.jpg",
        "ab&c/d.jpg",
        "ac+d.jpg",
        "A/x.jpg",
        "<a>/x.jpg",
        "z%20z.jpg",
        "zz",
        "ad.jpg",
    ),
]
LISTINGS: list[dict[str, Any]] = [
    {},
    {"Prefix": "class-3/"},
    {"Prefix": "a"},
    {"Prefix": "none"},
    {"Delimiter": "/"},
    {"Prefix": "a/", "Delimiter": "/"},
    {"StartAfter": "class-2/picture 1000.jpg"},
    {"StartAfter": "class-2/picture 1000.jpg", "Prefix": "class-2/"},
]


@pytest.fixture(scope="module")
def labs(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Lab]]:
    """The same objects on the real and on the synthetic server."""
    real = Lab.on(s3_server)
    with running(0, tmp_path_factory.mktemp("synthetic")) as server:
        made = Lab(server.arena.server, server.arena.client, synthetic.TRAIN, synthetic.AIRLOCK, synthetic.DVC)
        for lab in (real, made):
            store = s3.store(lab.access, lab.train)
            list(parallel.unordered(partial(put, store), KEYS, 16))
        yield real, made


def put(store: Any, key: str) -> None:
    """An object that holds its own name."""
    obstore.put(store, key, key.encode())


@pytest.mark.parametrize(
    ("listing", "page"),
    [*((listing, 1000) for listing in LISTINGS), ({"Delimiter": "/"}, 3), ({"Prefix": "a"}, 2)],
    ids=str,
)
def test_boto3_is_given_the_same_pages_as_by_a_real_server(
    labs: tuple[Lab, Lab], listing: dict[str, Any], page: int
) -> None:
    real, made = (pages(lab, listing, page) for lab in labs)
    assert made == real


def pages(lab: Lab, listing: dict[str, Any], page: int) -> list[Any]:
    """Names, sizes and ETags, page by page."""
    paginator = lab.client.get_paginator("list_objects_v2")
    return [
        (
            [(each["Key"], each["Size"], each["ETag"]) for each in found.get("Contents", [])],
            [each["Prefix"] for each in found.get("CommonPrefixes", [])],
        )
        for found in paginator.paginate(Bucket=lab.train, PaginationConfig={"PageSize": page}, **listing)
    ]


@pytest.mark.parametrize("prefix", [None, "class-3", "a"])
def test_obstore_is_given_the_same_objects_as_by_a_real_server(labs: tuple[Lab, Lab], prefix: str | None) -> None:
    real, made = (obstore_listing(lab.access, lab.train, prefix) for lab in labs)
    assert made == real


def obstore_listing(access: S3Access, bucket: str, prefix: str | None) -> tuple[list[Any], list[str]]:
    """All objects in one stream, and the folders."""
    store = s3.store(access, bucket)
    rows = [(each["path"], each["size"], each["e_tag"]) for page in obstore.list(store, prefix) for each in page]
    return sorted(rows), sorted(obstore.list_with_delimiter(store, prefix)["common_prefixes"])


@pytest.mark.parametrize("which", [0, 1], ids=["real", "synthetic"])
def test_conditions_hold_on_both(labs: tuple[Lab, Lab], which: int) -> None:
    lab = labs[which]
    overwrite = partial(lab.client.put_object, Bucket=lab.airlock, Key="a", Body=b"2")
    source = {"Bucket": lab.airlock, "Key": "a"}
    copy = partial(lab.client.copy_object, Bucket=lab.dvc, Key="b", CopySource=source)
    tag = lab.client.put_object(Bucket=lab.airlock, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    other = f'"{"0" * 32}"'
    refused = [
        partial(overwrite, IfNoneMatch="*"),
        partial(overwrite, IfMatch=other),
        partial(copy, CopySourceIfMatch=other),
    ]
    for call in refused:
        with pytest.raises(ClientError, match=r"PreconditionFailed|412"):
            call()
    copy(CopySourceIfMatch=tag)
    overwrite(IfMatch=tag)
    assert (lab.read(lab.dvc, "b"), lab.read(lab.airlock, "a")) == (b"1", b"2")


def test_the_directory_object_of_a_snapshot_there_is_the_one_of_dvcs_own_classes(tmp_path: Path) -> None:
    with running(50, tmp_path) as bucket:
        bucket.take()
        bucket.change(3)
        _, result = bucket.take()
        assert result["reason"] == "0 added, 0 removed, 3 changed; 3 copied"
        assert result["md5"] == bucket.directory_of_dvc()
