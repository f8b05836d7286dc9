"""Sizes as people write them."""

from __future__ import annotations

import re

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def in_bytes(value: object) -> object:
    """The bytes of `2g` or `512m`; what is no text stays as it is. Raises ValueError for another text."""
    if not isinstance(value, str):
        return value
    match = SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write it like 2g or 512m")
    return int(float(match[1]) * UNITS[match[2].lower()])
