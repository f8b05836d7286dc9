"""JSON that can be read in one way only.

Docker's own reader takes the last of two equal keys and matches keys in any letter case. A filter that reads the
same bytes in another way checks something else than what Docker does, so whatever has two readings is refused.
"""

from __future__ import annotations

import json
from typing import Any

from docker_gate.refusal import Refused


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises Refused for doubled keys, NaN, other encodings than UTF-8, other documents."""
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not plain JSON: {error}") from None
    if not isinstance(document, dict):
        raise Refused("the body is not a JSON object")
    return document


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for key, value in pairs:
        if key in read:
            raise Refused(f"the key {key!r} is there twice")
        read[key] = value
    return read


def _no_constant(name: str) -> Any:
    raise Refused(f"{name} is not JSON")
