"""`make bench-scale`: how the steps of a snapshot grow with the bucket, and what follows for larger ones."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.catalogue import DATA_REMOTE
from trainer.directory import content_path

from tests.bench.data import arena, million
from tests.bench.data.arena import SMALL_BYTES, Arena, Buckets, Dataset, body_of, key_of, put
from tests.bench.data.pairs import Measured
from tests.bench.data.process import ROOT, end_on_sigterm

RESULTS = ROOT / ".airlock" / "bench"
SIZES = (10_000, 30_000, 100_000)
SYNTHETIC = 1_000_000
CHANGED = 100
RUNS = 3
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
    server, buckets = data.arena, data.buckets
    measured, data.first = data.take()
    values = snapshot_values(server, buckets, ALL_NEW, measured, data.first)

    def changed() -> dict[str, float]:
        data.change(CHANGED)
        return snapshot_values(server, buckets, FEW_NEW, *data.take())

    values |= medians(changed) | medians(lambda: listings(server, buckets))
    key = f"{DATA_REMOTE}/{content_path(str(data.first['md5']))}"
    values["directory object, bytes"] = float(server.client.head_object(Bucket=buckets.dvc, Key=key)["ContentLength"])
    with server.scratch() as directory:
        command = ["pull", data.snapshot_id, str(directory / "cache")]
        values["pull, cold"] = server.ours(command, buckets, directory)[0].seconds

        def again() -> dict[str, float]:
            measured, result = server.ours(command, buckets, directory)
            assert result["objects"] == 0, result
            what = "pull, nothing changed"
            return {what: measured.seconds, f"{what}: peak bytes": float(result["peak_bytes"])}

        values |= medians(again)
    return Column(data.count, values=values)


def synthetic(count: int, scratch: Path) -> Column:
    """Our side alone: the content is in the remote already, and a listing costs the server next to nothing."""
    with million.running(count, scratch) as bucket:
        values: dict[str, float] = {}
        for kind in (ALL_NEW, FEW_NEW):
            values |= snapshot_values(bucket.arena, million.BUCKETS, kind, *bucket.take())
            bucket.change(CHANGED)
        values |= medians(lambda: listings(bucket.arena, million.BUCKETS))
    return Column(count, synthetic=True, values=values)


def snapshot_values(
    server: Arena, buckets: Buckets, kind: str, measured: Measured, result: Mapping[str, Any]
) -> dict[str, float]:
    """A snapshot, step by step; some steps run beside each other."""
    steps = server.steps(buckets, result["snapshot_id"])
    return {
        **{f"snapshot, {kind}: {step}": seconds for step, seconds in steps.items()},
        f"snapshot, {kind}: whole": measured.seconds,
        f"snapshot, {kind}: peak bytes": float(result["peak_bytes"]),
    }


def listings(server: Arena, buckets: Buckets) -> dict[str, float]:
    """The listing as a snapshot reads it, and the least that one stream of pages takes."""
    values: dict[str, float] = {}
    for command, name in (("list", "the listing alone"), ("stream-list", "one obstore stream")):
        with server.scratch() as directory:
            values[name] = server.ours([command], buckets, directory)[0].seconds
    return values


def medians(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The median of each value over a few runs of what takes seconds."""
    runs = [measure() for _ in range(RUNS)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


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
    """A slope as the table shows it; what does not grow has none."""
    if slope <= 0:
        return "–"
    return f"{slope:.0f} B" if name.endswith("bytes") else f"{slope * 1e6:.1f} µs"


def reckoned(name: str, columns: Sequence[Column], count: int) -> float | None:
    """The larger of the real server's line and the synthetic bucket's share; None where neither grows."""
    at_zero, slope = line(real_points(name, columns))
    found = [at_zero + slope * count] if slope > 0 else []
    found += [each.values[name] * count / each.count for each in columns if each.synthetic and name in each.values]
    return max(found, default=None)


def real_points(name: str, columns: Sequence[Column]) -> list[tuple[float, float]]:
    """What the real server's line is drawn through."""
    return [(column.count, column.values[name]) for column in columns if not column.synthetic]


def table(columns: Sequence[Column]) -> str:
    """One row a step."""
    heads = [f"{column.count:,}{', synthetic' if column.synthetic else ''}" for column in columns]
    rows = [["what", *heads, "slope, per object", *(f"{count // 10**6} million" for count in RECKONED)]]
    rows.append(["---"] * len(rows[0]))
    for name in columns[0].values:
        values = [column.values.get(name) for column in columns]
        values += [reckoned(name, columns, count) for count in RECKONED]
        cells = ["–" if value is None else shown(name, value) for value in values]
        cells.insert(len(columns), per_object(name, line(real_points(name, columns))[1]))
        rows.append([name, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Prints the table of docs/scale.md."""
    parser = argparse.ArgumentParser(prog="make bench-scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="objects on the real server")
    parser.add_argument("--synthetic", type=int, default=SYNTHETIC, help="keys on the synthetic one")
    chosen = parser.parse_args()
    end_on_sigterm()
    RESULTS.mkdir(parents=True, exist_ok=True)
    columns: list[Column] = []
    with tempfile.TemporaryDirectory(dir=RESULTS) as directory:
        with arena.running(Path(directory) / "server", Path(directory) / "clients") as server:
            for column in real(server, sorted(chosen.sizes)):
                columns.append(column)
                print(f"measured {column.count:,} objects", flush=True)
        columns.append(synthetic(chosen.synthetic, Path(directory) / "clients"))
    print(f"\n{table(columns)}")
    (RESULTS / "scale.json").write_text(json.dumps([asdict(column) for column in columns], indent=1))


if __name__ == "__main__":
    main()
