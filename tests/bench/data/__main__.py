"""`make bench-data`: dataset snapshots and pulls beside the tools that people use, one server, the same files."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.data import arena, million, pulls, server_limits, snapshots
from tests.bench.data.lab import SCALES, Lab
from tests.bench.data.process import RESULTS, end_on_sigterm
from tests.bench.data.report import Figure, Limit, Line, table


@dataclass(frozen=True)
class Row:
    """A part of the benchmark that can be asked for."""

    lines: Callable[[Lab], list[Line]]
    minutes: float
    """At full scale on 2 cores, the upload of its files included."""


ROWS = {
    "pull-small": Row(pulls.small, 14),
    "pull-packs": Row(pulls.packed, 4),
    "pull-large": Row(pulls.large, 4),
    "pull-again": Row(pulls.again, 6),
    "snapshot-new": Row(snapshots.new, 9),
    "snapshot-changed": Row(snapshots.changed, 10),
    "image-bytes": Row(snapshots.image_bytes, 0.5),
    "memory": Row(snapshots.memory, 0.5),
    "million": Row(million.million, 3),
}


def main() -> None:
    """Prints the table of docs/benchmarks.md, a line as soon as it is measured to stderr."""
    parser = argparse.ArgumentParser(prog="make bench-data", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--target", type=Path, default=RESULTS, help="the directory below which clients write")
    chosen = parser.parse_args()
    end_on_sigterm()
    if chosen.scale == "full":
        print(f"about {sum(ROWS[name].minutes for name in chosen.rows):.0f} minutes on 2 cores", flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    print(f"clients write to {arena.file_system(chosen.target)}", flush=True)
    with (
        tempfile.TemporaryDirectory(dir=RESULTS) as directory,
        tempfile.TemporaryDirectory(dir=chosen.target) as target,
        arena.running(Path(directory), Path(target)) as server,
    ):
        lab = Lab(server, SCALES[chosen.scale])
        limits: list[Limit] = []
        lines: list[Line] = []
        for name in chosen.rows:
            start = time.monotonic()
            lines += ROWS[name].lines(lab)
            print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
        if "few" in lab.__dict__:
            limits += [server_limits.gets(lab.few), server_limits.copies(lab.few)]
        if "large" in lab.__dict__:
            limits.append(server_limits.gets(lab.large))
    print(f"\n{table(lines)}\n")
    for limit in limits:
        print(f"The server's own limit: {limit.words()}")
    about = {"scale": chosen.scale, "target": arena.file_system(chosen.target)}
    (RESULTS / "data.json").write_text(as_json(about, lines, limits))


def as_json(about: dict[str, str], lines: list[Line], limits: list[Limit]) -> str:
    """Every run of every pair, so that other figures can be made of them."""
    rows = [
        {"kind": "figure" if isinstance(line, Figure) else "duel", **asdict(line), "met": line.met} for line in lines
    ]
    return json.dumps({**about, "rows": rows, "limits": [asdict(limit) for limit in limits]}, indent=1)


if __name__ == "__main__":
    main()
