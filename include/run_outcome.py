"""What came of a DAG run, in one line of its note."""

from __future__ import annotations

# Keys of the XComs that tell it: of a task that decides how the run ends, and of one that failed.
OUTCOME, ERROR = "outcome", "error"

# How the outcome of a run begins that ended for a newer one's sake.
SUPERSEDED = "superseded"

MARK = "Outcome: "
LONGEST_NOTE = 1000  # characters; Airflow's column
LONGEST_SENTENCE = 600


def sentence(error: object) -> str:
    """An error's first line, which names the thing, the cause and the next step."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:LONGEST_SENTENCE]


def with_outcome(note: str | None, outcome: str) -> str:
    """The note with the outcome as its last line, in place of a former one; what a person wrote stays."""
    line = MARK + " ".join(outcome.split())
    kept = [former for former in (note or "").splitlines() if not former.startswith(MARK)]
    return "\n".join([*kept, line[: max(LONGEST_NOTE - sum(len(former) + 1 for former in kept), 0)]]).strip()
