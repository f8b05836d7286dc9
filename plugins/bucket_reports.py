"""Reports a bucket that cannot be listed to the watchdog, and that it can be again."""

from __future__ import annotations

from include.alert_spool import spool

# A restart of the S3 server takes less.
UNREACHABLE_SECONDS = 60.0
AGAIN_SECONDS = 3600.0


class BucketReports:
    """What is reported of one project's bucket by the process that looks at it."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._since: float | None = None
        self._reported: float | None = None
        # Of an outage that another process has reported, this one does not know.
        self._said_well = False

    def failed(self, why: str, now: float) -> None:
        """A look has failed at this monotonic time."""
        if self._since is None:
            self._since = now
        due = self._reported is None or now - self._reported >= AGAIN_SECONDS
        if now - self._since >= UNREACHABLE_SECONDS and due:
            self._reported = now
            next_step = "see whether the S3 server is up (`scripts/compose ps`); nothing uploaded meanwhile is lost"
            spool().broken(self._project, "bucket", why, next_step)

    def succeeded(self) -> None:
        """A look has succeeded."""
        if self._reported is not None or not self._said_well:
            spool().well(self._project, "bucket")
        self._since, self._reported, self._said_well = None, None, True
