"""What a running HAProxy can be asked and told over its sockets."""

from __future__ import annotations

import csv
import io
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from include.haproxy_config import ADMIN_SOCKET, MASTER_SOCKET

TIMEOUT_SECONDS = 5
POLL_SECONDS = 0.05
RUNNING = "2"  # srv_op_state
PID = re.compile(r"^Pid: (\d+)$", re.MULTILINE)
OLD_WORKER = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)


class FrontDoorError(Exception):
    """HAProxy could not be asked, or did not do what it was told."""


@dataclass(frozen=True)
class ServerStatus:
    """A server line's address (None: not resolved) and whether its health check passes."""

    address: str | None
    up: bool


class Traffic(NamedTuple):
    """Requests, and how many of them were answered 5xx, by the API or by HAProxy in its place."""

    requests: int
    failed: int


class Runtime:
    """HAProxy's runtime API. Every method raises FrontDoorError where HAProxy does not answer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def running(self) -> bool:
        """Whether an HAProxy answers."""
        try:
            self._ask_worker("show version")
        except FrontDoorError:
            return False
        return True

    def pid(self) -> int:
        """The process id of the worker that answers, in HAProxy's container."""
        info = self._ask_worker("show info")
        found = PID.search(info)
        if found is None:
            raise FrontDoorError(f"HAProxy did not say its process id: {info[:80]!r}")
        return int(found[1])

    def map(self, file: str) -> dict[str, str]:
        """The entries of a map, as the current worker has them."""
        lines = self._ask_worker(f"show map {file}").splitlines()
        entries = [line.split(maxsplit=2)[1:] for line in lines if line.startswith("0x")]
        return {entry[0]: entry[1] for entry in entries}

    def set_map(self, file: str, key: str, value: str | None) -> None:
        """Set one entry (None: remove it)."""
        if value is None:
            self._ask_worker(f"del map {file} {key}")
        elif "not found" in self._ask_worker(f"set map {file} {key} {value}"):
            self._ask_worker(f"add map {file} {key} {value}")
        if self.map(file).get(key) != value:
            raise FrontDoorError(f"HAProxy did not take {key} -> {value} into {file}; see its log")

    def backends(self) -> set[str]:
        """The names of the backends that the current worker has."""
        lines = self._ask_worker("show backend").splitlines()
        return {line.strip() for line in lines if line.strip() and not line.startswith("#")}

    def server(self, backend: str, server: str) -> ServerStatus:
        """A server's status. Raises FrontDoorError where HAProxy has no such server."""
        lines = self.servers_state().splitlines()
        names = lines[1].removeprefix("#").split()
        for line in lines[2:]:
            row = dict(zip(names, line.split(), strict=False))
            if (row.get("be_name"), row.get("srv_name")) == (backend, server):
                address = row["srv_addr"] if row["srv_addr"] != "-" else None
                return ServerStatus(address, row["srv_op_state"] == RUNNING and row["srv_admin_state"] == "0")
        raise FrontDoorError(f"HAProxy has no server {backend}/{server}: run `make up` to give the project its route")

    def servers_state(self) -> str:
        """Every server's state, in the form that a new worker can load."""
        state = self._ask_worker("show servers state")
        if not state.startswith("1\n#"):
            raise FrontDoorError(f"HAProxy gave its servers' state in an unknown form: {state[:80]!r}")
        return state

    def sessions(self, backend: str) -> int:
        """Requests that are being answered by a backend now, in every worker."""
        answers = [self._ask_worker("show stat")]
        answers += [self._ask_master(f"@!{pid} show stat") for pid in self._old_workers()]
        return sum(_column(answer, backend, "scur") for answer in answers)

    def traffic(self, backend: str) -> Traffic:
        """What a backend has been asked since the current worker's start."""
        stat = self._ask_worker("show stat")
        return Traffic(_column(stat, backend, "req_tot"), _column(stat, backend, "hrsp_5xx"))

    def reload(self) -> None:
        """Read the configuration anew; a wrong one leaves the current worker in place."""
        self._ask_master("reload")

    def _old_workers(self) -> list[str]:
        return OLD_WORKER.findall(self._ask_master("show proc").partition("# old workers")[2])

    def _ask_worker(self, command: str) -> str:
        try:
            return _ask(self.directory / ADMIN_SOCKET, command)
        except OSError as error:
            raise self._silent(ADMIN_SOCKET, error) from error

    def _ask_master(self, command: str) -> str:
        """The master is away for a moment while it reloads."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return _ask(self.directory / MASTER_SOCKET, command)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self._silent(MASTER_SOCKET, error) from error
                time.sleep(POLL_SECONDS)

    def _silent(self, name: str, error: OSError) -> FrontDoorError:
        return FrontDoorError(
            f"HAProxy does not answer at {self.directory / name} ({error}): look at `docker compose ps haproxy` "
            "and its log"
        )


def _ask(path: Path, command: str) -> str:
    answer = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(str(path))
        connection.sendall(f"{command}\n".encode())
        connection.shutdown(socket.SHUT_WR)  # the master goes on waiting for commands else
        while chunk := connection.recv(65_536):
            answer += chunk
    return answer.decode(errors="replace").strip() + "\n"


def _column(stat: str, backend: str, column: str) -> int:
    rows = csv.DictReader(io.StringIO(stat.removeprefix("# ")))
    return sum(int(row[column] or 0) for row in rows if (row["pxname"], row["svname"]) == (backend, "BACKEND"))
