"""Log lines are events with fields: one JSON object a line, on stderr."""

import json
import logging
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

_logger = logging.getLogger("api")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr() -> None:
    """Sends every log line of the process, libraries included, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # its remarks on pictures that strangers send
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request to MLflow says nothing of use


def event(name: str, *, level: int = logging.INFO, exc_info: BaseException | None = None, **fields: object) -> None:
    """Logs one event with its fields."""
    _logger.log(level, name, exc_info=exc_info, extra={"fields": fields})
