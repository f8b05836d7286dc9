"""Makes `.env` from `.env.example` at the first start: empty secrets become random, the device what Docker can do."""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROLE_KEY = re.compile(r"^S3_([A-Z]+)_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)$")
PLAIN = re.compile(r"""[^\s'"$#`\\]*""")
# RFC 3986, section 2.3: what needs no escape in any part of an address.
IN_AN_ADDRESS = re.compile(r"[A-Za-z0-9._~-]*")
LINE = re.compile(r"^([A-Z0-9_]+)=(.*)$")


class SettingsError(Exception):
    """A line of `.env` that programs would read differently; the message has its number."""


def read(path: Path) -> dict[str, str]:
    """The settings of an env file, in its order. Raises SettingsError.

    Comments and blank lines do not count. Compose, the shell and Python each read quotes, `$` and comments behind a
    value in their own way: a value is taken as it stands, and these are refused.
    """
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := LINE.match(line):
            if PLAIN.fullmatch(match[2]) is None:
                raise SettingsError(
                    f"{path.name}:{number}: write the value of {match[1]} without quotes, blanks, `$` and `#`"
                )
            found[match[1]] = match[2]
        elif line.strip() and not line.lstrip().startswith("#"):
            raise SettingsError(f"{path.name}:{number}: {line.strip()[:40]!r} is no setting: write NAME=value")
    for name in found.keys() & {"POSTGRES_PASSWORD"}:
        if IN_AN_ADDRESS.fullmatch(found[name]) is None:
            raise SettingsError(f"{path.name}: {name} goes into addresses: only letters, digits, `-`, `_`, `.` and `~`")
    return found


def device() -> str:
    """`cuda` where Docker knows the NVIDIA runtime, else `cpu`."""
    info = subprocess.run(["docker", "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True)
    return "cuda" if '"nvidia"' in info.stdout else "cpu"


def generator(name: str) -> Callable[[], str] | None:
    """How an empty setting is filled, or None where empty is a value of its own."""
    if name == "AIRLOCK_DEVICE":
        return device
    if name == "AIRFLOW_FERNET_KEY":  # 32 bytes, URL-safe base64: https://github.com/fernet/spec
        return lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if name.endswith("_ACCESS_KEY_ID"):
        return lambda: "AL" + secrets.token_hex(9).upper()
    if name.endswith(("_SECRET_ACCESS_KEY", "_SECRET_KEY", "_JWT_SECRET", "_PASSWORD")):
        return lambda: secrets.token_urlsafe(24)
    return None


def complete(example: str, current: dict[str, str], comments: Sequence[str] = ()) -> str:
    """The text of `.env`: the example's lines with the values that are already set, the rest filled in.

    Settings and comments that are the user's own come last.

    S3 keys are made only for a server of ours: a made-up key would not open somebody else's. Other servers than the
    embedded one know the administrator alone until somebody makes more users: there every role gets that pair.
    """
    server = current.get("COMPOSE_PROFILES", "embedded")
    made: dict[str, str] = {}
    lines: list[str] = []
    for line in example.splitlines():
        if match := LINE.match(line):
            name, value = match[1], current.get(match[1], match[2])
            role = ROLE_KEY.match(name)
            if not value and role and server != "embedded" and role[1] != "ADMIN":
                value = made[f"S3_ADMIN_{role[2]}"]
            elif not value and (make := generator(name)) and (server or not role):
                value = make()
            made[name] = value
            line = f"{name}={value}"
        lines.append(line)
    known = {m[1] for line in lines if (m := LINE.match(line))}
    lines += [f"{name}={value}" for name, value in current.items() if name not in known]
    lines += [comment for comment in comments if comment not in lines]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes `.env`, readable by its owner alone; says so when it is new."""
    target = ROOT / ".env"
    current = read(target) if target.exists() else {}
    lines = target.read_text().splitlines() if target.exists() else []
    comments = [line for line in lines if line.lstrip().startswith("#")]
    text = complete((ROOT / ".env.example").read_text(), current, comments)
    if target.exists() and target.read_text() == text:
        return
    part = ROOT / ".env.part"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(target)
    if not current:
        print("airlock: wrote .env with random secrets")


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(f"airlock: {error}")
