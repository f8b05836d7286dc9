"""`make bench-airflow`: what Airflow and Airlock take around a training, on the running system.

Prints the tables of docs/benchmarks.md. The rows are those of `ROWS`; OPTIONS may name some of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tests.bench.airflow import many_projects, one_project
from tests.e2e.system import System

ROWS: dict[str, Callable[[System], None]] = {
    "projects": many_projects.measure,
    "project": one_project.measure,
}


def main() -> None:
    """Measures what is asked for, all by default."""
    parser = argparse.ArgumentParser(prog="make bench-airflow")
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="default: all")
    asked = parser.parse_args().rows or list(ROWS)
    system = System()
    for row in asked:
        ROWS[row](system)


if __name__ == "__main__":
    main()
