"""The front door's haproxy.cfg, rendered from the projects' names: the same names give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from include.releases import Colour

COLOURS: tuple[Colour, ...] = ("blue", "green")
FRONT_PORT = 8000
HEALTH_PORT = 8404
API_PORT = 8000

CONFIG_FILE = "haproxy.cfg"
MAP_FILE = "active.map"
SERVERS_FILE = "servers.state"
ADMIN_SOCKET = "admin.sock"
MASTER_SOCKET = "master.sock"

DOCKER_DNS = "127.0.0.11:53"


def backend_name(project: str, colour: Colour) -> str:
    """A project's names have no underscore, so no two backends share a name."""
    return f"{project}_{colour}"


def server_name(project: str, colour: Colour) -> str:
    """Also the container's name, and so its host name."""
    return f"{project}-{colour}-1"


def render(names: Iterable[str], directory: Path = Path("/run/airlock-haproxy"), dns: str = DOCKER_DNS) -> str:
    """The whole file. `directory` is where HAProxy sees its own files; `dns` answers with the containers' addresses."""
    projects = sorted(names)
    parts = [_base(directory, dns), _front(projects, directory), _health()]
    parts += [_backend(project, colour) for project in projects for colour in COLOURS]
    return "\n".join(parts)


def _base(directory: Path, dns: str) -> str:
    # hard-stop-after: a reload leaves the old worker to finish its requests, not for ever.
    # server-state: a reloaded worker takes over the servers' addresses, and so needs no first DNS answer to serve.
    return f"""\
# Rendered from include/projects/ by `make up`; changes made here are lost.
global
    log stdout format raw local0
    maxconn 4096
    nbthread 4
    hard-stop-after 5m
    stats socket {directory}/{ADMIN_SOCKET} mode 660 level admin expose-fd listeners
    server-state-file {directory}/{SERVERS_FILE}

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option dontlog-normal
    option forwardfor
    option redispatch
    # Keep-alive clients are not cut off by a reload: their connection ends after an answer.
    option idle-close-on-response
    retries 3
    # Predictions are idempotent, so a request that met a closing connection may be sent again.
    retry-on conn-failure empty-response
    load-server-state-from-file global
    timeout connect 2s
    timeout client 30s
    timeout http-request 15s
    timeout http-keep-alive 60s
    timeout queue 5s
    timeout server 60s
    timeout check 5s
{_own_errors()}
resolvers docker
    nameserver dns {dns}
    resolve_retries 2
    timeout resolve 500ms
    timeout retry 500ms
    hold valid 1s
    accepted_payload_size 8192
"""


def _own_errors() -> str:
    """HAProxy's own error pages, in the form of every other error."""
    errors = {
        400: ("Bad request", "the request is not valid HTTP"),
        408: ("Request timeout", "the request was not sent in time"),
        502: ("Bad gateway", "the API gave no valid answer; try again"),
        503: ("Service unavailable", "the API cannot be reached; try again"),
        504: ("Gateway timeout", "the API did not answer in time; try again"),
    }
    lines = [
        f"    http-error status {status} content-type application/problem+json string '{_problem(status, *words)}'"
        for status, words in errors.items()
    ]
    return "\n".join(lines) + "\n"


def _front(projects: list[str], directory: Path) -> str:
    known = "".join(f"    acl known var(txn.project) -m str {project}\n" for project in projects)
    unknown = _problem(404, "Unknown project", "there is no project %[var(txn.project),json(utf8s)]")
    unreleased = _problem(
        503, "Not yet released", "the project %[var(txn.project),json(utf8s)] has no released model yet"
    )
    return f"""\
frontend front
    bind :{FRONT_PORT}
    http-request set-var(txn.project) path,field(2,/)
    http-request set-var(txn.backend) var(txn.project),map({directory}/{MAP_FILE})
    acl known always_false
{known}\
    http-request return status 404 content-type application/problem+json lf-string '{unknown}' unless known
    http-request return status 503 content-type application/problem+json hdr Retry-After 30 lf-string '{unreleased}' \
unless {{ var(txn.backend) -m found }}
    use_backend %[var(txn.backend)]
"""


def _health() -> str:
    return f"""\
frontend health
    bind :{HEALTH_PORT}
    monitor-uri /health
    http-request deny deny_status 404
"""


def _backend(project: str, colour: Colour) -> str:
    # A new address (a new container) is taken from DNS within a second; until then there is none.
    server = server_name(project, colour)
    return f"""\
backend {backend_name(project, colour)}
    http-request set-path %[path,regsub(^/[^/]+/?,/)]
    option httpchk
    http-check send meth GET uri /health
    http-check expect status 200
    server {server} {server}:{API_PORT} check inter 500ms rise 1 fall 3 resolvers docker resolve-prefer ipv4 \
init-addr last,none
"""


def _problem(status: int, title: str, detail: str) -> str:
    """RFC 9457; `detail` may hold a HAProxy expression. The words hold no ' (HAProxy's quote)."""
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
