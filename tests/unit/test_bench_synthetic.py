"""The synthetic server lists as S3 does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.bench.data import synthetic

names = st.lists(st.text("ab/é", min_size=1, max_size=6), unique=True, max_size=30)


def expected(keys: list[str], prefix: str, delimiter: str, after: str) -> list[str]:
    """Contents and common prefixes in order, as S3's documentation defines them."""
    found: list[str] = []
    for key in sorted(key for key in keys if key.startswith(prefix) and key > after):
        head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key[len(prefix) :], "", "")
        if (entry := prefix + head + cut) not in found:
            found.append(entry)
    return found


@given(
    keys=names,
    prefix=st.sampled_from(["", "a", "a/", "é/", "b//"]),
    delimiter=st.sampled_from(["", "/"]),
    after=st.sampled_from(["", "a", "a/a", "b/"]),
    limit=st.integers(1, 5),
)
def test_pages_together_give_every_entry_once_and_in_order(
    keys: list[str], prefix: str, delimiter: str, after: str, limit: int
) -> None:
    bucket = synthetic.Bucket()
    bucket.fill((key, b"x") for key in keys)
    query = {"list-type": "2", "prefix": prefix, "delimiter": delimiter, "max-keys": str(limit), "start-after": after}
    found: list[str] = []
    while True:
        page = synthetic.next_page(bucket, query)
        assert len(page.keys) + len(page.prefixes) <= limit
        found += sorted([*page.keys, *page.prefixes])
        if not page.next:
            break
        assert page.next != query.get("continuation-token"), "the listing does not go on"
        query["continuation-token"] = page.next
    assert found == expected(keys, prefix, delimiter, after)
