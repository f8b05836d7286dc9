"""What the gate says when it does not let a call through."""

from __future__ import annotations


class Refused(Exception):
    """A call that the gate does not let through (403); the message says which and why."""


class NotOurs(Exception):
    """A container or an image that is absent, or that is none of Airlock's (404): both look the same."""
