"""`make bench-scale`: how the steps of a snapshot grow with the bucket, and what follows for larger ones."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.catalogue import DATA_REMOTE
from trainer.directory import content_path

from tests.bench.data import arena, million
from tests.bench.data.arena import SMALL_BYTES, Arena, Buckets, Dataset, body_of, key_of, put
from tests.bench.data.pairs import Measured
from tests.bench.data.process import ROOT

RESULTS = ROOT / ".airlock" / "bench"
SIZES = (10_000, 30_000, 100_000)
SYNTHETIC = 1_000_000
CHANGED = 100
SEED = 4_000_000_000
RECKONED = (10_000_000, 100_000_000)

ALL_NEW, FEW_NEW = "all new", f"{CHANGED} changed"


@dataclass
class Column:
    """What was measured on one bucket."""

    count: int
    synthetic: bool = False
    values: dict[str, float] = field(default_factory=dict)
    """Seconds, or bytes where the name ends so, by what was done."""

    def snapshot(self, kind: str, measured: Measured, result: Mapping[str, Any], steps: Mapping[str, float]) -> None:
        """Note a snapshot, step by step."""
        for step, seconds in steps.items():
            self.values[f"snapshot, {kind}: {step}"] = seconds
        self.values[f"snapshot, {kind}: the rest, with the start of the process"] = measured.seconds - sum(
            steps.values()
        )
        self.values[f"snapshot, {kind}: whole"] = measured.seconds
        self.values[f"snapshot, {kind}: peak bytes"] = float(result["peak_bytes"])


def real(server: Arena, sizes: Sequence[int]) -> Iterator[Column]:
    """One bucket that grows; at each size snapshots into an empty catalogue and remote, listings, and pulls."""
    train = server.bucket("train")
    uploaded = 0
    for count in sizes:
        put(server, train, ((key_of(n), body_of(SEED + n, SMALL_BYTES)) for n in range(uploaded, count)))
        uploaded = count
        buckets = Buckets(train, server.bucket("airlock"), server.bucket("dvc"))
        # A seed of its own, so that what is changed is new at every size.
        yield one_size(Dataset(server, buckets, count, SMALL_BYTES, SEED + 10 * count))
        server.drop(buckets.airlock, buckets.dvc)


def one_size(data: Dataset) -> Column:
    """Everything that is measured of one bucket."""
    column = Column(data.count)
    measured, data.first = data.take()
    column.snapshot(ALL_NEW, measured, data.first, data.arena.steps(data.buckets, data.snapshot_id))
    data.change(CHANGED)
    measured, result = data.take()
    column.snapshot(FEW_NEW, measured, result, data.arena.steps(data.buckets, result["snapshot_id"]))
    listings(data.arena, data.buckets, column)
    key = f"{DATA_REMOTE}/{content_path(str(data.first['md5']))}"
    head = data.arena.client.head_object(Bucket=data.buckets.dvc, Key=key)
    column.values["directory object, bytes"] = float(head["ContentLength"])
    with data.arena.scratch() as directory:
        command = ["pull", data.snapshot_id, str(directory / "cache")]
        first, _ = data.arena.ours(command, data.buckets, directory)
        second, result = data.arena.ours(command, data.buckets, directory)
    assert result["objects"] == 0, result
    column.values["pull, cold"] = first.seconds
    column.values["pull, nothing changed"] = second.seconds
    column.values["pull, nothing changed: peak bytes"] = float(result["peak_bytes"])
    return column


def synthetic(count: int, scratch: Path) -> Column:
    """Our side alone: the content is in the remote already, and a listing costs the server next to nothing."""
    column = Column(count, synthetic=True)
    with million.running(count, scratch) as bucket:
        for kind in (ALL_NEW, FEW_NEW):
            measured, result = bucket.take()
            column.snapshot(kind, measured, result, bucket.arena.steps(million.BUCKETS, result["snapshot_id"]))
            bucket.change(CHANGED)
        listings(bucket.arena, million.BUCKETS, column)
    return column


def listings(server: Arena, buckets: Buckets, column: Column) -> None:
    """The listing as a snapshot reads it, and the least that one stream of pages takes."""
    for command, name in (("list", "the listing alone"), ("stream-list", "one obstore stream")):
        with server.scratch() as directory:
            column.values[name] = server.ours([command], buckets, directory)[0].seconds


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: what there is at zero, and the slope."""
    x_mean = statistics.fmean(x for x, _ in points)
    y_mean = statistics.fmean(y for _, y in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)
    return y_mean - slope * x_mean, slope


def shown(name: str, value: float) -> str:
    """A value in the unit that suits its size."""
    if name.endswith("bytes"):
        return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
    if value >= 2 * 3600:
        return f"{value / 3600:.1f} h"
    return f"{value / 60:.0f} min" if value >= 300 else f"{value:.2f} s"


def per_object(name: str, slope: float) -> str:
    """A slope as the table shows it."""
    return f"{slope:.0f} B" if name.endswith("bytes") else f"{slope * 1e6:.1f} µs"


def table(columns: Sequence[Column]) -> str:
    """One row a step; slope and reckoning are those of the real server."""
    heads = [f"{column.count:,}{', synthetic' if column.synthetic else ''}" for column in columns]
    rows = [["what", *heads, "slope, per object", *(f"{count // 10**6} million" for count in RECKONED)]]
    rows.append(["---"] * len(rows[0]))
    for name in columns[0].values:
        points = [(column.count, column.values[name]) for column in columns if not column.synthetic]
        at_zero, slope = line(points)
        values = [shown(name, column.values[name]) if name in column.values else "–" for column in columns]
        reckoned = [shown(name, max(0.0, at_zero + slope * count)) for count in RECKONED]
        rows.append([name, *values, per_object(name, slope), *reckoned])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Prints the table of docs/scale.md."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="objects on the real server")
    parser.add_argument("--synthetic", type=int, default=SYNTHETIC, help="keys on the synthetic one")
    chosen = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    columns: list[Column] = []
    with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
        with arena.running(Path(directory)) as server:
            for column in real(server, sorted(chosen.sizes)):
                columns.append(column)
                print(f"measured {column.count:,} objects", flush=True)
        columns.append(synthetic(chosen.synthetic, Path(directory) / "clients"))
    print(f"\n{table(columns)}")
    (RESULTS / "scale.json").write_text(json.dumps([asdict(column) for column in columns], indent=1))


if __name__ == "__main__":
    main()
