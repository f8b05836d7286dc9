"""Which objects are downloaded to see whether their ETags are md5s."""

from __future__ import annotations

import pytest
from trainer import directory
from trainer.comparing import compare
from trainer.hashing import SAMPLE_BYTES, SAMPLED, UNKNOWN, said_by_etags, sample
from trainer.listing import Row


def rows(count: int, size: int) -> list[Row]:
    return [Row(f"cat/{n}.png", "a" * 32, size) for n in range(count)]


def test_a_few_of_many_small_objects_are_sampled() -> None:
    chosen = sample(rows(1000, 10_000))
    assert len(set(chosen)) == SAMPLED


def test_all_of_very_few_are_sampled() -> None:
    assert sorted(sample(rows(3, 10_000))) == rows(3, 10_000)
    assert sample([]) == []


def test_of_very_large_objects_only_one_is_downloaded() -> None:
    assert len(sample(rows(20, SAMPLE_BYTES * 2))) == 1


def test_another_sample_is_taken_each_time() -> None:
    many = rows(100_000, 10_000)
    assert sample(many) != sample(many)


@pytest.mark.parametrize("etag", ['W/"0123', "0123456789abcdef0123456789abcdef-2", "back\\slash", "", "A" * 32])
def test_an_etag_that_can_be_no_md5_spoils_no_comparison(etag: str) -> None:
    rows = [Row("cat/1.png", etag, 1), Row("cat/2.png", "b" * 32, 1)]
    md5s = said_by_etags(rows)
    assert md5s == [UNKNOWN, "b" * 32]
    before = directory.encode([("a" * 32, "cat/1.png"), ("b" * 32, "cat/2.png")])
    unchanged, diff = compare(directory.encode(zip(md5s, (row.key for row in rows), strict=True)), before)
    assert (unchanged, diff.changed) == ([False, True], 1)
