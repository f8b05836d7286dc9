"""Which calls the gate knows, and how their path and query are read.

A call is matched against the raw request target, before anything decodes or normalises it, and then written
anew from what was read: Docker never sees a path or a query that the caller wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

from docker_gate.refusal import Refused
from docker_gate.strict_json import read_object

MANAGED = "airlock.managed=true"
OLDEST_API = 41  # Docker 20.10

Scope = Literal["engine", "info", "list", "create", "container", "image"]
Check = Callable[[str], str | None]


@dataclass(frozen=True)
class Rule:
    """One call that is let through; `query` says how each parameter is read (None: accepted, not forwarded)."""

    method: str
    path: re.Pattern[str]
    scope: Scope
    query: Mapping[str, Check] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A call that matched: `version` is `/v1.41` or empty, `name` the container's or image's name, as given."""

    method: str
    scope: Scope
    version: str
    path: str
    name: str
    suffix: str
    query: Mapping[str, str]


def read_call(method: str, target: str) -> Call:
    """The call behind a raw request target. Raises Refused where there is none."""
    path, _, query = target.partition("?")
    if "%" in path or "//" in path or "\\" in path or any(part in (".", "..") for part in path.split("/")):
        raise Refused(f"{method} {path!r}: a path is written plainly or not at all")
    found = re.fullmatch(r"(/v1\.(\d{1,3}))?(/.*)", path)
    if not found:
        raise Refused(f"{method} {path!r} is no path of the Docker API")
    version, minor, rest = found.groups()
    if minor and int(minor) < OLDEST_API:
        raise Refused(f"{method} {path!r}: the API before 1.{OLDEST_API} reads bodies in other ways")
    for rule in RULES:
        if rule.method == method and (match := rule.path.fullmatch(rest)):
            parts = match.groupdict()
            return Call(
                method,
                rule.scope,
                version or "",
                rest,
                parts.get("name", ""),
                parts.get("suffix", ""),
                _read_query(rule, query),
            )
    raise Refused(f"{method} {path} is none of the calls that Airlock makes")


def _read_query(rule: Rule, raw: str) -> dict[str, str]:
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, strict_parsing=bool(raw), errors="strict", max_num_fields=20)
    except ValueError:
        raise Refused("the query cannot be read") from None
    for key, value in pairs:
        if key in given:
            raise Refused(f"the parameter {key!r} is there twice")
        if key not in rule.query:
            raise Refused(f"the parameter {key!r} is not known here")
        given[key] = value
    read = {key: rule.query[key](value) for key, value in given.items()}
    if rule.scope == "list":
        read.setdefault("filters", _filters("{}"))
    if rule.path is _ARCHIVE and "path" not in read:
        raise Refused("the parameter 'path' is missing")
    return {key: value for key, value in read.items() if value is not None}


def _flag(value: str) -> str:
    # requests writes True and False; Docker takes any word but a few for true.
    if value.lower() not in {"0", "1", "true", "false"}:
        raise Refused(f"{value!r} is neither true nor false")
    return "1" if value.lower() in {"1", "true"} else "0"


def _off(value: str) -> None:
    if _flag(value) == "1":
        raise Refused("an option that Airlock does not use is on")


def _ignored(value: str) -> None:
    _flag(value)


def _matching(pattern: str) -> Check:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise Refused(f"the value {value!r} is not allowed here")
        return value

    return check


def _filters(value: str) -> str:
    """Docker's filters, always narrowed to containers of ours."""
    filters: dict[str, Any] = read_object(value.encode())
    for key, values in filters.items():
        if key not in {"id", "label", "name", "status"}:
            raise Refused(f"the filter {key!r} is not known here")
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise Refused(f"the filter {key!r} is not a list of words")
    return json.dumps({**filters, "label": [*filters.get("label", []), MANAGED]})


_NAME = r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127})"
_IMAGE = r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.:@/-]{0,255})"
_NUMBER = _matching(r"-?\d{1,10}")
_TIME = _matching(r"\d{1,12}(\.\d{1,9})?")
_ARCHIVE = re.compile(rf"/containers/{_NAME}(?P<suffix>/archive)")


def _container(method: str, suffix: str, **query: Check) -> Rule:
    return Rule(method, re.compile(rf"/containers/{_NAME}(?P<suffix>{suffix})"), "container", query)


RULES = (
    Rule("GET", re.compile("/_ping"), "engine"),
    Rule("GET", re.compile("/version"), "engine"),
    Rule("GET", re.compile("/info"), "info"),
    Rule(
        "GET",
        re.compile("/containers/json"),
        "list",
        {"all": _flag, "limit": _NUMBER, "size": _flag, "trunc_cmd": _ignored, "filters": _filters},
    ),
    Rule("POST", re.compile("/containers/create"), "create", {"name": _matching(r"[a-z0-9][a-z0-9_.-]{0,127}")}),
    _container("GET", "/json", size=_flag),
    _container(
        "GET",
        "/logs",
        follow=_flag,
        stdout=_flag,
        stderr=_flag,
        timestamps=_flag,
        since=_TIME,
        until=_TIME,
        tail=_matching(r"all|\d{1,10}"),
    ),
    _container("POST", "/start"),
    _container("POST", "/stop", t=_matching(r"\d{1,4}")),
    _container("POST", "/kill", signal=_matching(r"\d{1,2}|(SIG)?[A-Z0-9+-]{2,10}")),
    _container("POST", "/wait", condition=_matching("not-running|next-exit|removed")),
    _container("DELETE", "", force=_flag, v=_flag, link=_off),
    Rule("GET", _ARCHIVE, "container", {"path": _matching(r"/results(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")}),
    Rule("GET", re.compile(rf"/images/{_IMAGE}/json"), "image"),
)
