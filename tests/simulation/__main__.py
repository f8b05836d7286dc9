"""`make simulate`: many histories, each from its seed; a broken one is shown, and `--replay` shows it again."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import secrets
import sys
import time

from tests.simulation.history import Outcome, play

CHUNK = 200


def main() -> int:
    """Returns the exit code: 1 where a history was broken."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None, help="of the first history; the next have the next numbers")
    parser.add_argument("--replay", type=int, default=None, metavar="SEED", help="one history, line by line")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.replay is not None:
        outcome = play(options.replay)
        print("\n".join(outcome.log))
        print(f"broken: {outcome.broken}" if outcome.broken else "nothing broken")
        return 1 if outcome.broken else 0
    seed = secrets.randbelow(2**48) if options.seed is None else options.seed
    print(f"{options.histories} histories from seed {seed}", flush=True)
    return 1 if run(seed, options.histories) else 0


def run(seed: int, histories: int) -> int:
    """Play them on every core; returns how many were broken."""
    began, broken = time.monotonic(), 0
    with multiprocessing.Pool() as pool:
        for done, outcome in enumerate(pool.imap_unordered(play_quietly, range(seed, seed + histories), CHUNK), 1):
            if outcome.broken:
                broken += 1
                print(f"seed {outcome.seed}: {outcome.broken}; make simulate OPTIONS='--replay {outcome.seed}'")
            if done % 10_000 == 0:
                print(f"{done} histories, {broken} broken, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{histories} histories, {broken} broken, {time.monotonic() - began:.0f} s")
    return broken


def play_quietly(seed: int) -> Outcome:
    """A history without its lines, which would be much to hand over."""
    outcome = play(seed)
    return Outcome(seed, [], outcome.broken)


if __name__ == "__main__":
    sys.exit(main())
