"""A client that keeps asking and counts every answer that is not 200."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

# More of them would take the two cores that training needs; integration tests ask thousands of times.
PAUSE_SECONDS = 0.1


@dataclass
class AskingClient:
    """Asks `/<project>/predict` on keep-alive and on new connections in turn until it is left; never retries."""

    port: int
    project: str
    picture: bytes
    answers: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(keep_alive,)) for keep_alive in (True, False)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> dict[str, int]:
        """Every answer but 200, counted by its cause."""
        return {cause: n for cause, n in self.answers.items() if cause != "200"}

    def _ask(self, keep_alive: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", f"/{self.project}/predict", self.picture, {"Content-Type": "image/png"})
                answer = connection.getresponse()
                answer.read()
                self.answers[str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[repr(error)] += 1
                connection.close()
            if not keep_alive:
                connection.close()
            time.sleep(PAUSE_SECONDS)
        connection.close()
