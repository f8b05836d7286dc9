"""The page "Airlock" in Airflow's navigation, behind Airflow's login: each project at a glance, and its buttons.

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
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader
from sqlalchemy import select

from include.accuracy_plot import Point, plot
from include.overview import Overview, overview, sheet_key
from include.project import PROJECTS_FOLDER, Project, load_all
from include.real_world import records, releases
from include.releases import ReleaseError
from include.run_outcome import MARK
from include.s3 import StorageError
from include.settings import get_settings
from include.snapshots import snapshot_ids, taken_at
from include.watch_orders import Wanted

# No script, style or picture from elsewhere; in Airflow's own frame alone.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-ancestors 'self'"
)

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
app = FastAPI(title="Airlock", docs_url=None, redoc_url=None, openapi_url=None)


@dataclass(frozen=True)
class Card:
    """One project on the page: what is known of it, or why nothing is."""

    project: str
    settings: Project
    known: Overview | None = None
    trouble: str | None = None
    outcome: str | None = None
    run_id: str | None = None
    watching: str | None = None
    orders: tuple[str, ...] = tuple(each.value for each in Wanted)

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
    projects = load_all(PROJECTS_FOLDER)
    cards = [card(projects.or_defaults(name)) for name in sorted(projects.names)]
    text = _templates.get_template("airlock_page.html").render(cards=cards)
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})


@app.get("/page.js")
def script(_: GetUserDep) -> HTMLResponse:
    """The buttons' script."""
    text = (Path(__file__).parent / "airlock_page.js").read_text()
    return HTMLResponse(text, media_type="text/javascript", headers={"Cache-Control": "no-store"})


@app.get("/sheets/{project}/{snapshot_id}")
def contact_sheet(project: str, snapshot_id: str, _: GetUserDep) -> Response:
    """A few pictures of a snapshot that was trained on."""
    try:
        taken_at(snapshot_id)
    except ValueError as error:
        raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from None
    if project not in load_all(PROJECTS_FOLDER).names:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such project")
    sheet = records(get_settings()).read(sheet_key(project, snapshot_id))
    if sheet is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "no training has made one yet")
    # Written by a container that has read what people upload: it is a picture, whatever it may look like.
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}
    return Response(sheet.body, media_type="image/jpeg", headers=headers)


def card(project: Project) -> Card:
    """What is shown of one project; trouble with one hides no other."""
    name, settings = project.name, get_settings()
    run_id, outcome = _newest_decision(name)
    known, trouble = None, None
    try:
        known = overview(name, releases(settings), records(settings), snapshot_ids(settings, name))
    except (StorageError, ReleaseError) as error:
        trouble = str(error)
    return Card(name, project, known, trouble, outcome, run_id, _watching(name))


def _watching(project: str) -> str | None:
    """What the watch waits for, in its own words."""
    query = (
        select(XComModel)
        .where(XComModel.dag_id == f"{project}__watch", XComModel.key == "progress")
        .order_by(XComModel.timestamp.desc())
        .limit(1)
    )
    with create_session() as session:
        said: Any = session.scalars(query).first()
        return None if said is None else str(XComModel.deserialize_value(said))


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
