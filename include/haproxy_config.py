"""The front door's haproxy.cfg, rendered from the projects' names and replicas: the same give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from include.releases import Colour

COLOURS: tuple[Colour, ...] = ("blue", "green")
FRONT_PORT = 8000
# Not published: for those who prove a release as its clients see it, without a key.
INSIDE_PORT = 8001
HEALTH_PORT = 8404
API_PORT = 8000
# A request that fits, with its headers, is sent again where its container died: pictures of up to a MiB.
BUFFER_BYTES = 2**20 + 16 * 2**10

# Requests that a container gets at once: fewer than the API takes, which leaves room for those who check it.
IN_FLIGHT = 30

CONFIG_FILE = "haproxy.cfg"
MAP_FILE = "active.map"
SHARES_FILE = "shares.map"
KEYS_FILE = "keys.map"
SERVERS_FILE = "servers.state"
ADMIN_SOCKET = "admin.sock"
MASTER_SOCKET = "master.sock"

DOCKER_DNS = "127.0.0.11:53"
SUCCESSOR = "successor"
KEYS = "keys"


class Routed(NamedTuple):
    """What the front door is told of a project."""

    replicas: int
    requests_per_minute: int


def backend_name(project: str, colour: Colour) -> str:
    """A project's names have no underscore, so no two backends share a name."""
    return f"{project}_{colour}"


def server_name(project: str, colour: Colour, number: int) -> str:
    """Also the container's name, and so its host name. `number` counts a release's replicas from 1."""
    return f"{project}-{colour}-{number}"


def render(
    projects: Mapping[str, Routed],
    directory: Path = Path("/run/airlock-haproxy"),
    dns: str = DOCKER_DNS,
    *,
    guarded: bool = False,
) -> str:
    """The whole file. `guarded`: who comes from outside needs an API key.

    `directory` is where HAProxy sees its own files; `dns` answers with the containers' addresses.
    """
    names = sorted(projects)
    parts = [_base(directory, dns), _front(projects, directory, guarded), _health(), _successor(), _keys()]
    parts += [_backend(project, colour, projects[project].replicas) for project in names for colour in COLOURS]
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
    tune.bufsize {BUFFER_BYTES}
    stats socket {directory}/{ADMIN_SOCKET} mode 660 level admin expose-fd listeners
    server-state-file {directory}/{SERVERS_FILE}

defaults
    mode http
    log global
    option httplog
    option dontlognull
    option dontlog-normal
    option forwardfor
    # Another replica at each retry, not at the last one only.
    option redispatch 1
    # Keep-alive clients are not cut off by a reload: their connection ends after an answer.
    option idle-close-on-response
    retries 3
    # Only a request that is here whole before it is sent on can be sent again.
    option http-buffer-request
    # Predictions are idempotent, so a request that met a closing connection may be sent again.
    retry-on conn-failure empty-response
    load-server-state-from-file global
    timeout connect 2s
    timeout client 30s
    timeout http-request 30s
    timeout http-keep-alive 60s
    timeout queue 20ms
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
        503: ("Service unavailable", "the API cannot be reached, or has as much to do as it takes; try again"),
        504: ("Gateway timeout", "the API did not answer in time; try again"),
    }
    again = {503: " hdr Retry-After 1"}
    lines = [
        f"    http-error status {status} content-type application/problem+json{again.get(status, '')} "
        f"string '{_problem(status, *words)}'"
        for status, words in errors.items()
    ]
    return "\n".join(lines) + "\n"


def _front(projects: Mapping[str, Routed], directory: Path, guarded: bool) -> str:
    known = "".join(f"    acl known var(txn.project) -m str {project}\n" for project in sorted(projects))
    directed = "".join(
        f"    http-request set-var(txn.other) var(txn.project),concat(_{other}) "
        f"if {{ var(txn.backend) -m end _{colour} }}\n"
        for colour, other in (COLOURS, COLOURS[::-1])
    )
    unknown = _problem(
        404,
        "Unknown project",
        "no project is at %[path,json(utf8s)]; an address begins with one, as in /<project>/predict",
    )
    unreleased = _problem(
        503, "Not yet released", "the project %[var(txn.project),json(utf8s)] has no released model yet"
    )
    # A worker that a reload has replaced checks no server any more: what its kept clients ask goes to its successor.
    # On trial: `shares.map` has how much of the traffic the other colour gets; it also stands by for the whole.
    return f"""\
frontend front
    bind :{FRONT_PORT}
    bind :{INSIDE_PORT}
    acl replaced stopping
    http-request set-var(txn.project) path,field(2,/)
    http-request set-var(txn.backend) var(txn.project),map({directory}/{MAP_FILE})
    http-request set-var(txn.share) var(txn.project),map_str_int({directory}/{SHARES_FILE})
{directed}\
    http-request set-var(txn.drawn) rand(100),sub(txn.share) if {{ var(txn.share) -m found }}
    acl known always_false
{known}\
    acl released var(txn.backend) -m found
    http-request return status 404 content-type application/problem+json lf-string '{unknown}' unless known or replaced
{_guard(projects, directory) if guarded else ""}\
    http-request return status 503 content-type application/problem+json hdr Retry-After 30 lf-string '{unreleased}' \
unless released or replaced
    http-request redirect code 308 location %[path]/ if {{ path -m reg ^/[^/]+$ }} !replaced
    acl shared var(txn.share) -m found
    acl drawn var(txn.drawn) -m int lt 0
    acl alive var(txn.backend),nbsrv -m int gt 0
    acl other_alive var(txn.other),nbsrv -m int gt 0
    use_backend {SUCCESSOR} if replaced
    use_backend %[var(txn.other)] if shared drawn other_alive or shared !alive other_alive
    use_backend %[var(txn.backend)]
"""


def _guard(projects: Mapping[str, Routed], directory: Path) -> str:
    # The hash of what was sent, looked up beside its project: HAProxy never holds a key. The page itself asks for one.
    no_key = _problem(401, "API key needed", "this project asks for an API key that it knows, in the header X-API-Key")
    too_many = _problem(429, "Too many requests", "this API key has made as many requests as it may in a minute")
    limits = "".join(
        f"    http-request set-var(txn.limit) int({projects[project].requests_per_minute}) "
        f"if {{ var(txn.project) -m str {project} }}\n"
        for project in sorted(projects)
    )
    return f"""\
    acl outside dst_port {FRONT_PORT}
    acl page path -m reg ^/[^/]+/?$
    http-request set-var(txn.hash) req.hdr(X-API-Key),sha2(256),hex,lower
    http-request set-var(txn.key) var(txn.project),concat(:,txn.hash),map({directory}/{KEYS_FILE})
    http-request del-header X-API-Key if !replaced
    acl keyed var(txn.key) -m found
    http-request return status 401 content-type application/problem+json hdr WWW-Authenticate ApiKey \
string '{no_key}' if outside !keyed !page !replaced
{limits}\
    http-request track-sc0 var(txn.key) table {KEYS} if outside keyed !replaced
    acl too_many sc0_http_req_rate,sub(txn.limit) gt 0
    http-request return status 429 content-type application/problem+json hdr Retry-After 10 \
string '{too_many}' if outside keyed too_many !replaced
"""


def _keys() -> str:
    return f"""\
backend {KEYS}
    stick-table type string len 128 size 100k expire 2m store http_req_rate(1m)
"""


def _health() -> str:
    return f"""\
frontend health
    bind :{HEALTH_PORT}
    monitor-uri /health
    http-request deny deny_status 404
"""


def _successor() -> str:
    return f"""\
backend {SUCCESSOR}
    server front 127.0.0.1:{FRONT_PORT}
"""


def _backend(project: str, colour: Colour, replicas: int) -> str:
    # A new address (a new container) is taken from DNS within a second; until then there is none.
    # A server that refuses a connection is down at once, not at its third failed check: a request is not lost on it.
    names = [server_name(project, colour, number) for number in range(1, replicas + 1)]
    servers = "".join(f"    server {name} {name}:{API_PORT}\n" for name in names)
    return f"""\
backend {backend_name(project, colour)}
    http-request set-path %[path,regsub(^/[^/]+/?,/)]
    option httpchk
    http-check send meth GET uri /health
    http-check expect status 200
    # More at once would only wait in the API. Refused here, it costs the cores that predict next to nothing.
    default-server maxconn {IN_FLIGHT} check inter 500ms rise 1 fall 3 observe layer4 error-limit 1 on-error mark-down \
resolvers docker resolve-prefer ipv4 init-addr last,none
{servers}"""


def _problem(status: int, title: str, detail: str) -> str:
    """RFC 9457; `detail` may hold a HAProxy expression. The words hold no ' (HAProxy's quote)."""
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})
