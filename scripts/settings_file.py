"""Makes `.env` from `.env.example` at the first start: empty secrets become random, the device what Docker can do."""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROLE_KEY = re.compile(r"^S3_([A-Z]+)_(ACCESS_KEY_ID|SECRET_ACCESS_KEY)$")
LINE = re.compile(r"^([A-Z0-9_]+)=(.*)$")


def read(path: Path) -> dict[str, str]:
    """The settings of an env file, in its order. Comments and blank lines do not count."""
    return {m[1]: m[2] for line in path.read_text().splitlines() if (m := LINE.match(line))}


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


def complete(example: str, current: dict[str, str]) -> str:
    """The text of `.env`: the example's lines with the values that are already set, the rest filled in.

    S3 keys are made only for a server of ours: a made-up key would not open somebody else's. MinIO knows its
    administrator alone until somebody makes it more users, so there every role gets that pair.
    """
    server = current.get("COMPOSE_PROFILES", "embedded")
    made: dict[str, str] = {}
    lines: list[str] = []
    for line in example.splitlines():
        if match := LINE.match(line):
            name, value = match[1], current.get(match[1], match[2])
            role = ROLE_KEY.match(name)
            if not value and role and server == "minio" and role[1] != "ADMIN":
                value = made[f"S3_ADMIN_{role[2]}"]
            elif not value and (make := generator(name)) and (server or not role):
                value = make()
            made[name] = value
            line = f"{name}={value}"
        lines.append(line)
    known = {m[1] for line in lines if (m := LINE.match(line))}
    lines += [f"{name}={value}" for name, value in current.items() if name not in known]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes `.env`, readable by its owner alone; says so when it is new."""
    target = ROOT / ".env"
    current = read(target) if target.exists() else {}
    text = complete((ROOT / ".env.example").read_text(), current)
    if target.exists() and target.read_text() == text:
        return
    part = ROOT / ".env.part"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(target)
    if not current:
        print("airlock: wrote .env with random secrets")


if __name__ == "__main__":
    main()
