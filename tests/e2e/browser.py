"""A headless Chromium, Debian's, logged in to Airflow."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.system import System

NAMES = ("chromium", "chromium-browser", "google-chrome")
# The second is for Playwright's own Node.
PACKAGES = ("chromium", "libatomic1")
# No sandbox: tests may run as root. The rest keeps the browser off the network but for the pages that it is shown.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A page takes seconds on a busy machine, of Airflow's as of ours.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


def chromium() -> Path:
    """The browser; installed from Debian's packages where it is missing. Fails where that cannot be done."""
    if (found := _which()) and find_library("atomic"):
        return found
    installable = os.geteuid() == 0 and shutil.which("apt-get")
    needed = f"apt-get install {' '.join(PACKAGES)}"
    assert installable, f"no Chromium here, or no libatomic, and only root on Debian or Ubuntu can install it: {needed}"
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, env=quiet)
        assert done.returncode == 0, f"apt-get {' '.join(command)}: {done.stderr[-2000:]}"
    found = _which()
    assert found, "the package chromium was installed, but there is no program of that name"
    return found


def _which() -> Path | None:
    return next((Path(path) for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser_page(width: int = 1400, height: int = 1000, scale: float = 1) -> Iterator[Page]:
    """An empty page of a browser of its own; `scale` is device pixels to a CSS pixel."""
    program = chromium()  # first: Playwright's own driver needs libraries that are installed with it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(program), args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
            page.set_default_timeout(PATIENCE_MS)
            yield page
        finally:
            browser.close()


def log_in(page: Page, system: System) -> None:
    """Logs in to Airflow by its form."""
    page.goto(f"{system.airflow_url}/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(system.settings["AIRFLOW_ADMIN_PASSWORD"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Welcome").wait_for()
