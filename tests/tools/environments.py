"""Makes the environments of host tools on demand, each from its lock file, below `.airlock/tools`."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".airlock" / "tools"
UV = ROOT / ".airlock" / "host" / "bin" / "uv"  # as scripts/tools put it there


def executable(lock: str, name: str) -> Path:
    """The program `name` from the environment locked in `tests/tools/<lock>.txt`, made first where it is missing."""
    lock_file = LOCKS / f"{lock}.txt"
    home = ENVIRONMENTS / lock
    wanted = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"{lock}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        stamp = home / "made-from"
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([str(UV), "venv", "-q", "--clear", "--python", "3.11", str(home)], check=True)
            install = [str(UV), "pip", "install", "-q", "-p", str(home), "--require-hashes", "-r", str(lock_file)]
            subprocess.run(install, check=True)
            stamp.write_text(wanted)
    return home / "bin" / name
