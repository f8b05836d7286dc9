"""Rows about taking a snapshot of a bucket on the real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from trainer import hashing

from tests.bench.data import rivals
from tests.bench.data.arena import Arena, Buckets, Dataset, key_of, put
from tests.bench.data.lab import Lab
from tests.bench.data.pairs import Client, Measured, Pair, duel
from tests.bench.data.proxy import Traffic
from tests.bench.data.pulls import against
from tests.bench.data.report import Duel, Figure, Line

CHAIN = "`s5cmd sync`, `dvc add`, `dvc push`"
IMPORT = "`dvc import-url --to-remote`"
MEMORY_GOAL_BYTES = 100 << 20


def new(lab: Lab) -> list[Line]:
    """A first snapshot."""
    data, arena = lab.few, lab.arena
    contenders = [(CHAIN, 5.0, _chain(arena, data)), (IMPORT, 5.0, _imported(arena, data.buckets.train))]
    return against(arena, f"snapshot of {data.count:,} new objects", _first(arena, data), contenders)


def changed(lab: Lab) -> list[Line]:
    """A snapshot of a bucket of which little has changed."""
    data, arena = lab.many, lab.arena
    changes = lab.scale.changed
    what = f"snapshot with {changes} of {data.count:,} changed"

    def own(limit: float | None) -> Measured:
        data.change(changes)
        return data.take()[0]

    lines: list[Line] = []
    for command, name in (("list", "the listing alone, as a snapshot reads it"), ("stream-list", "one obstore stream")):
        lines.append(Duel(what, name, 1.5, duel(own, _listing(arena, data, command)), inverted=True))
    with _workspace(arena, data) as repo:
        pairs, own_traffic, theirs_traffic = _incremental(data, repo, changes)
        lines.append(Duel(what, CHAIN, 10.0, pairs, own_traffic.bytes, theirs_traffic.bytes))
    imported = _imported(arena, data.buckets.train)
    lines.append(Duel(what, IMPORT + " (it has no increment)", 10.0, duel(own, imported), own_traffic.bytes))
    return lines


def image_bytes(lab: Lab) -> list[Line]:
    """What of the images passes through the host that takes a snapshot."""
    data, arena = lab.few, lab.arena
    with arena.counted() as traffic:
        _first(arena, data)(None)
    read = traffic.object_bytes["GET", data.buckets.train]
    total = data.count * data.size
    what = f"image bytes through the client, snapshot of {data.count:,} new objects"
    sampled = hashing.SAMPLED * data.size
    goal = f"0 beside the hashed sample of {hashing.SAMPLED} images"
    value = f"{read - sampled:,} B beside it; in all {read:,} B of {total:,} B ({read / total:.2%})"
    return [Figure(what, goal, value, read == sampled, "counted at a proxy")]


def memory(lab: Lab) -> list[Line]:
    """What a snapshot takes over one of next to nothing."""
    data, arena = lab.many, lab.arena
    buckets = Buckets(*(arena.bucket(word) for word in ("train", "airlock", "dvc")))
    put(arena, buckets.train, [(key_of(0), b"a"), (key_of(1), b"b")])
    almost_empty = Dataset(arena, buckets, 2, 1, 0)
    base = max(almost_empty.take()[1]["peak_bytes"], _taken_again(almost_empty, 1))
    peak = max(data.first["peak_bytes"], _taken_again(data, lab.scale.changed))
    arena.drop(buckets.train, buckets.airlock, buckets.dvc)
    over = peak - base
    value = f"{over / 2**20:.0f} MiB over {base / 2**20:.0f} MiB, {over / data.count:.0f} B an object"
    return [Figure(f"memory, {data.count:,} objects", "≤ 100 MiB over the empty run", value, over <= MEMORY_GOAL_BYTES)]


def _taken_again(data: Dataset, changes: int) -> int:
    data.change(changes)
    return int(data.take()[1]["peak_bytes"])


def _first(arena: Arena, data: Dataset) -> Client:
    def run(limit: float | None) -> Measured:
        buckets = replace(data.buckets, airlock=arena.bucket("airlock"), dvc=arena.bucket("dvc"))
        with arena.scratch() as directory:
            measured, result = arena.ours(["take"], buckets, directory, limit)
        assert result["md5"] == data.first["md5"], result
        arena.drop(buckets.airlock, buckets.dvc)
        return measured

    return run


def _chain(arena: Arena, data: Dataset) -> Client:
    return _in_a_repo(arena, lambda repo, limit: repo.sync_add_push(data.buckets.train, limit), data.first["md5"])


def _imported(arena: Arena, bucket: str) -> Client:
    return _in_a_repo(arena, lambda repo, limit: repo.import_to_remote(bucket, limit), None)


def _in_a_repo(arena: Arena, work: Callable[[rivals.Repo, float | None], Measured], md5: str | None) -> Client:
    """DVC from nothing: an empty repository and an empty remote."""

    def run(limit: float | None) -> Measured:
        bucket = arena.bucket("theirs")
        with arena.scratch() as directory:
            repo = rivals.Repo(arena, directory)
            repo.init(f"s3://{bucket}/data")
            measured = work(repo, limit)
            assert measured.stopped or md5 in {None, repo.md5}, f"{repo.md5} is not {md5}"
        arena.drop(bucket)
        return measured

    return run


def _listing(arena: Arena, data: Dataset, command: str) -> Client:
    def run(limit: float | None) -> Measured:
        with arena.scratch() as directory:
            measured, result = arena.ours([command], data.buckets, directory, limit)
        assert result["objects"] == data.count, result
        return measured

    return run


@contextmanager
def _workspace(arena: Arena, data: Dataset) -> Iterator[rivals.Repo]:
    """A DVC workspace that holds the bucket as it was at our newest snapshot, on the same remote."""
    with arena.scratch() as directory:
        repo = rivals.Repo(arena, directory)
        repo.init(f"s3://{data.buckets.dvc}/data")
        repo.sync_add_push(data.buckets.train)
        yield repo


def _incremental(data: Dataset, repo: rivals.Repo, changes: int) -> tuple[list[Pair], Traffic, Traffic]:
    """Pairs of snapshots of the same change, then one more pair for what they move."""

    def own(limit: float | None) -> Measured:
        contents = data.change(changes)
        measured, result = data.take()
        # So that DVC finds the remote as we did: with the new content still to be brought.
        data.unpin([*contents, result["md5"]])
        wanted.append(result["md5"])
        return measured

    def theirs(limit: float | None) -> Measured:
        measured = repo.sync_add_push(data.buckets.train)
        assert repo.md5 == wanted[-1], f"DVC made {repo.md5} of what we call {wanted[-1]}"
        return measured

    wanted: list[str] = []
    pairs = duel(own, theirs)
    with data.arena.counted() as own_traffic:
        own(None)
    with data.arena.counted() as theirs_traffic:
        theirs(None)
    return pairs, own_traffic, theirs_traffic
