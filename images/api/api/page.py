"""The page to drop a picture on, at the API's root: one file, with nothing fetched from elsewhere."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


def add_page(app: FastAPI) -> None:
    """Gives the app its page, wherever the front door mounts it."""
    headers = {
        "Content-Security-Policy": policy(PAGE),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE, headers=headers)


def policy(page: str) -> str:
    """The content security policy under which this page's own style and script run, and no other."""
    style, script = (_hash(page, tag) for tag in ("style", "script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(page: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
