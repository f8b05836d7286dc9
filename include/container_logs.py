"""Log lines out of Docker's log stream, each once, however often the stream is opened anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

OnLine = Callable[[str], None]

# Docker cuts a line into messages of 16 KiB; a program that never ends its line is not collected for ever.
LINE_BYTES = 1 << 16
# RFC 3339 with nanoseconds, in UTC, as Docker writes it.
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


class LogLines:
    """Reads messages of `logs(timestamps=True)`: a timestamp of fixed width, a blank, a line or a piece of one."""

    def __init__(self, on_line: OnLine) -> None:
        self._on_line = on_line
        self._last = ""
        self._known = ""
        self._line = b""

    @property
    def since(self) -> int | None:
        """The second from which on the stream must be asked for again; None at the beginning."""
        return int(datetime.fromisoformat(f"{self._last[:19]}+00:00").timestamp()) if self._last else None

    def begin_stream(self) -> None:
        """From here on, messages are of a stream opened anew: it repeats what followed the last whole line."""
        self._line = b""
        self._known = self._last

    def add(self, message: bytes) -> None:
        """Take one message; what the former stream had is dropped, and a line is handed on when it is whole."""
        stamp, _, text = message.partition(b" ")
        moment = stamp.decode("ascii", errors="replace")
        if STAMP.fullmatch(moment) is None:  # Docker's own words, such as "Error grabbing logs: …"
            self._on_line(f"Docker: {message.decode(errors='replace').strip()}")
            return
        # Within a stream stamps do not tell messages apart: all pieces of a long line have that of the first.
        if moment <= self._known:
            return
        self._line += text
        if text.endswith(b"\n") or len(self._line) >= LINE_BYTES:
            self._last = max(self._last, moment)
            self.flush()

    def flush(self) -> None:
        """Hand on a last line that has no end."""
        if self._line:
            line, self._line = self._line, b""
            # Of a progress bar, what a terminal would show.
            self._on_line(line.decode("utf-8", errors="replace").rstrip("\r\n").rpartition("\r")[2])
