"""`make bench-footprint`: sizes of the images, memory and processor time of the idle system."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from tests.e2e.system import docker, images

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
GIB = 2**30
IDLE_SECONDS = 60
TICKS = 100  # a second, of /proc/stat (proc(5))


def memory(text: str) -> float:
    """`12.5MiB / 2GiB` as bytes used."""
    found = re.match(r"([\d.]+)(\w+)", text)
    assert found, text
    return float(found[1]) * UNITS[found[2]]


def busy_seconds() -> float:
    """Processor time of the whole machine since its start, the engine and its health checks included."""
    user, nice, system, _idle, _iowait, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(others)) / TICKS


def main() -> None:
    """Prints the tables of docs/benchmarks.md."""
    print("| image | GB |\n|---|---|")
    for tag in images().values():
        size = int(docker("image", "inspect", "--format", "{{.Size}}", tag))
        print(f"| {tag.partition(':')[0]} | {size / 1e9:.2f} |")
    rows = [
        json.loads(line)
        for line in docker("stats", "--no-stream", "--format", "{{json .}}").splitlines()
        if json.loads(line)["Name"].startswith("airlock-") or re.search(r"-(blue|green)-\d+$", json.loads(line)["Name"])
    ]
    print("\n| container | MiB |\n|---|---|")
    for row in sorted(rows, key=lambda row: -memory(row["MemUsage"])):
        print(f"| {row['Name']} | {memory(row['MemUsage']) / 2**20:.0f} |")
    print(f"| **all, GiB** | **{sum(memory(row['MemUsage']) for row in rows) / GIB:.2f}** |")
    before = busy_seconds()
    time.sleep(IDLE_SECONDS)
    share = (busy_seconds() - before) / IDLE_SECONDS
    print(f"\nThe machine with the idle system took {share:.2f} seconds of one core a second")


if __name__ == "__main__":
    main()
