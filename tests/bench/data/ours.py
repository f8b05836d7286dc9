"""What Airlock's trainer does with a snapshot, as small programs: one process per measured run.

Settings come from the environment, as in the trainer's container; the last line printed is a JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import obstore
from trainer import listing, s3, snapshot, tree
from trainer.cache import Cache
from trainer.catalogue import Catalogue
from trainer.pictures import Format
from trainer.s3 import S3Access

PROJECT = "bench"


def access() -> S3Access:
    """The server that the environment names."""
    names = ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    return S3Access(*(os.environ[name] for name in names))


def _catalogue() -> Catalogue:
    return Catalogue(access(), PROJECT, os.environ["AIRLOCK_BUCKET"], os.environ["DVC_BUCKET"])


def pull(snapshot_id: str, cache_dir: str, packs: str = "") -> dict[str, Any]:
    """The snapshot's content into the host's cache, read as `trainer.dataset.prepare` reads it; `packs`: with packs."""
    catalogue = _catalogue()
    entries = catalogue.entries(catalogue.record(snapshot_id).md5)
    sizes = catalogue.sizes(snapshot_id)
    cache = Cache(Path(cache_dir), packs_of=PROJECT if packs else None)
    fetched = cache.fetch(access(), os.environ["DVC_BUCKET"], sizes)
    return {"files": len(entries), **asdict(fetched)}


def link(snapshot_id: str, cache_dir: str, work_dir: str) -> dict[str, Any]:
    """The clean tree of a run, out of a cache that holds the snapshot."""
    catalogue = _catalogue()
    entries = catalogue.entries(catalogue.record(snapshot_id).md5)
    cache, form = Cache(Path(cache_dir)), Format(".jpg", whole=True)
    start = time.monotonic()
    root = tree.fresh(Path(work_dir))
    labelled = [(entry.md5, entry.relpath.partition("/")[0]) for entry in entries]
    tree.make_classes(root, sorted({label for _, label in labelled}))
    for md5, label in labelled:
        tree.place(root, "train", label, cache.path(md5), md5, form)
    return {"files": len(labelled), "link_seconds": time.monotonic() - start}


def take() -> dict[str, Any]:
    """A snapshot."""
    result = snapshot.take(
        access(),
        project=PROJECT,
        train_bucket=os.environ["TRAIN_BUCKET"],
        airlock_bucket=os.environ["AIRLOCK_BUCKET"],
        dvc_bucket=os.environ["DVC_BUCKET"],
        expected_digest="",
        triggered_by="a benchmark",
    )
    return asdict(result)


def read_listing() -> dict[str, Any]:
    """The listing alone, as a snapshot reads it."""
    return {"objects": len(listing.read(access(), os.environ["TRAIN_BUCKET"]))}


def stream_listing() -> dict[str, Any]:
    """The same objects as one stream of pages, by the fastest client that was found, and nothing made of them."""
    store = s3.store(access(), os.environ["TRAIN_BUCKET"])
    return {"objects": sum(len(page) for page in obstore.list(store, chunk_size=1000))}


COMMANDS = {"pull": pull, "link": link, "take": take, "list": read_listing, "stream-list": stream_listing}


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def main() -> None:
    """Runs one command, with its arguments."""
    start = time.monotonic()
    result = COMMANDS[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
    print(json.dumps({**result, "work_seconds": time.monotonic() - start, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
