"""The counting proxy of the benchmarks, before the synthetic server."""

from __future__ import annotations

from collections.abc import Iterator

import obstore
import pytest
from trainer import s3
from trainer.s3 import S3Access

from tests.bench.data import proxy, synthetic
from tests.bench.data.million import Synthetic, running


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synthetic]:
    """A synthetic server with 2,500 objects."""
    with running(2_500, tmp_path_factory.mktemp("synthetic")) as server:
        yield server


def access(address: str) -> S3Access:
    """The way to a server that looks at no keys."""
    return S3Access(address, "any", "any")


def test_bodies_of_objects_are_counted_exactly_and_listings_are_not(bucket: Synthetic) -> None:
    with proxy.counting(bucket.arena.endpoint_url) as (address, traffic):
        store = s3.store(access(address), synthetic.TRAIN)
        names = [each["path"] for each in obstore.list(store).collect()]
        bodies = [bytes(obstore.get(store, name).bytes()) for name in names[:10]]
        client = s3.client(access(address))
        client.head_object(Bucket=synthetic.TRAIN, Key=names[0])
        client.put_object(Bucket=synthetic.AIRLOCK, Key="record", Body=b"x" * 100_000)
        client.get_object(Bucket=synthetic.AIRLOCK, Key="record")["Body"].read()
    assert len(names) == 2_500
    assert traffic.object_bytes == {
        ("GET", synthetic.TRAIN): sum(map(len, bodies)),
        ("PUT", synthetic.AIRLOCK): 100_000,
        ("GET", synthetic.AIRLOCK): 100_000,
    }
    assert traffic.requests["GET", synthetic.TRAIN] == 3 + 10
    assert traffic.requests["HEAD", synthetic.TRAIN] == 1
    assert traffic.bytes > 200_000


def test_what_the_server_refuses_is_no_body_of_an_object(bucket: Synthetic) -> None:
    with proxy.counting(bucket.arena.endpoint_url) as (address, traffic):
        with pytest.raises(FileNotFoundError):
            obstore.get(s3.store(access(address), synthetic.TRAIN), "missing")
        assert traffic.requests["GET", synthetic.TRAIN] == 1
    assert not traffic.object_bytes
