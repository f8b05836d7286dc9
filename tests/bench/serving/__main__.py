"""`make bench-serve`: Airlock's API beside other ways to serve such a model, on one core, asked from another."""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.bench.data.process import RESULTS, end_on_sigterm
from tests.bench.serving import report
from tests.bench.serving.arena import Arena, apart, arena
from tests.bench.serving.rows import batches, overload, speed, starts, tuned

SIZES = (64, 224)
STOCK, MLFLOW = "FastAPI + Ultralytics", "mlflow models serve"


def say(words: str) -> None:
    """What has just been measured."""
    print(words, flush=True)


def main() -> None:
    """Prints the tables of docs/benchmarks.md, and writes every figure to .airlock/bench/serving.json."""
    parser = argparse.ArgumentParser(prog="make bench-serve", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds: int = parser.parse_args().rounds
    end_on_sigterm()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, arena(Path(directory)) as place:
        found, tables = _measured(place, rounds)
    (RESULTS / "serving.json").write_text(json.dumps(found, indent=1))
    print("\n" + "\n\n".join(tables))


def _measured(place: Arena, rounds: int) -> tuple[dict[str, object], list[str]]:
    tables: list[str] = []
    found: dict[str, object] = {}
    for size in SIZES:
        with apart():
            best = tuned(place, size, say)
            each = speed(place, size, rounds, [place.rival(STOCK, size), *best], say)
        found[f"speed at {size} px"] = asdict(each)
        tables.append(report.speed_tables(each))
    bentoml = next(each for each in best if each.name.startswith("BentoML"))
    rivals = [place.rival(STOCK, SIZES[0]), bentoml, place.rival(MLFLOW, SIZES[0])]
    seconds = starts(place, SIZES[0], rounds, rivals)
    found["starts"] = seconds
    tables.append(report.start_table(seconds))
    with apart():
        loads = {
            f"{size} px, {where}": overload(place, size, through_the_door)
            for size in SIZES
            for where, through_the_door in (("asked directly", False), ("through HAProxy", True))
        }
    found["overload"] = {words: asdict(each) for words, each in loads.items()}
    tables.append("\n".join([report.OVERLOAD_HEADER, *(report.overload_lines(*each) for each in loads.items())]))
    for cores in ("0", "0,1"):
        for size in SIZES:
            gains = batches(place, size, rounds, cores)
            found[f"batches at {size} px on cores {cores}"] = gains
            words = ", ".join(f"{number}: {gain:.2f}" for number, gain in gains.items())
            tables.append(f"Batches at {size} px on the cores {cores}: {words}")
    return found, tables


if __name__ == "__main__":
    main()
