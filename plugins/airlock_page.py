"""The page "Airlock" in Airflow's navigation, behind Airflow's login: each project at a glance, and two buttons.

It reads when it is opened, and asks for nothing by itself afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader
from sqlalchemy import select

from include.accuracy_plot import Point, plot
from include.overview import Overview, overview
from include.project import PROJECTS_FOLDER, load_all
from include.real_world import records, releases
from include.releases import ReleaseError
from include.run_outcome import MARK
from include.s3 import StorageError
from include.settings import get_settings
from include.snapshots import snapshot_ids

# No script, style or picture from elsewhere; in Airflow's own frame alone.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; frame-ancestors 'self'"

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
app = FastAPI(title="Airlock", docs_url=None, redoc_url=None, openapi_url=None)


@dataclass(frozen=True)
class Card:
    """One project on the page: what is known of it, or why nothing is."""

    project: str
    known: Overview | None = None
    trouble: str | None = None
    outcome: str | None = None
    run_id: str | None = None

    @property
    def chart(self) -> str:
        """The plot of its releases, as SVG; empty where none has an accuracy."""
        promotions = self.known.promotions if self.known is not None else ()
        points = [Point(one.at, one.accuracy, one.record.release_id) for one in promotions if one.accuracy is not None]
        return plot(points) if points else ""


@app.exception_handler(HTTPException)
def log_in(request: Request, error: HTTPException) -> Response:
    """Who is not logged in is led to Airflow's own form, and back."""
    if error.status_code != HTTPStatus.UNAUTHORIZED:
        return Response(str(error.detail), error.status_code)
    return RedirectResponse(f"/auth/login?next={quote(f'{request.base_url}')}", HTTPStatus.SEE_OTHER)


@app.get("/", response_class=HTMLResponse)
def page(_: GetUserDep) -> HTMLResponse:
    """The page."""
    cards = [card(name) for name in sorted(load_all(PROJECTS_FOLDER).names)]
    text = _templates.get_template("airlock_page.html").render(cards=cards)
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})


@app.get("/page.js")
def script(_: GetUserDep) -> HTMLResponse:
    """The buttons' script."""
    text = (Path(__file__).parent / "airlock_page.js").read_text()
    return HTMLResponse(text, media_type="text/javascript", headers={"Cache-Control": "no-store"})


def card(project: str) -> Card:
    """What is shown of one project; trouble with one hides no other."""
    run_id, outcome = _newest_decision(project)
    settings = get_settings()
    try:
        known = overview(project, releases(settings), records(settings), snapshot_ids(settings, project))
    except (StorageError, ReleaseError) as error:
        return Card(project, trouble=str(error), outcome=outcome, run_id=run_id)
    return Card(project, known=known, outcome=outcome, run_id=run_id)


def _newest_decision(project: str) -> tuple[str | None, str | None]:
    """The newest retrain that has ended, and its outcome."""
    query = (
        select(DagRun)
        .where(DagRun.dag_id == f"{project}__retrain", DagRun.end_date.is_not(None))
        .order_by(DagRun.end_date.desc())
        .limit(1)
    )
    with create_session() as session:
        run: Any = session.scalars(query).first()
        if run is None:
            return None, None
        said = [line for line in (run.note or "").splitlines() if line.startswith(MARK)]
        return run.run_id, said[-1].removeprefix(MARK) if said else str(run.state)
