"""`make pictures`: README's pictures, taken from the running system after `make demo`. Reads only."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import FilePayload, Locator, Page

from tests.e2e.browser import browser_page, log_in
from tests.e2e.lab import pictures
from tests.e2e.system import ROOT, System

PROJECT = "digits"
DAG = f"{PROJECT}__retrain"
FOLDER = ROOT / "docs" / "images"
MAX_BYTES = 300_000
MARGIN = 24
# Charts and graphs move into place after they are there.
SETTLE_MS = 3000


def main() -> None:
    """Takes the pictures. Fails where there is no released run to show."""
    system = System()
    served = system.metadata(PROJECT)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with browser_page(width=1500, height=800, scale=1.5) as page:
        log_in(page, system)
        airflow_graph(page, system, served["run_id"])
    with browser_page(width=1280, height=900) as page:
        log_in(page, system)
        airlock_page(page, system)
    with browser_page(width=1500, height=1500) as page:
        mlflow_curves(page, system, served["run_id"])
    with browser_page(width=760, height=640, scale=1.5) as page:
        api_page(page, system)
    for picture in FOLDER.glob("*.png"):
        assert picture.stat().st_size <= MAX_BYTES, f"{picture} has {picture.stat().st_size} bytes"


def airflow_graph(page: Page, system: System, run_id: str) -> None:
    """The graph of the run that made what serves."""
    run = next(run for run in system.runs(DAG) if (system.xcom(run, "register") or {}).get("run_id") == run_id)
    page.goto(f"{system.airflow_url}/dags/{DAG}/runs/{quote(run.run_id, safe='')}")
    page.get_by_label("Show Graph (Press g)").click()
    tasks = page.locator(".react-flow__node")
    tasks.first.wait_for()
    # The whole width for the graph, which then has to be fitted to it.
    page.get_by_label("Collapse Details Panel").click()
    page.wait_for_timeout(SETTLE_MS)
    page.locator(".react-flow__controls-fitview").click()
    page.wait_for_timeout(SETTLE_MS)
    screenshot_around(page, tasks, FOLDER / "airflow-graph.png")


def airlock_page(page: Page, system: System) -> None:
    """The project on the page in Airflow's own navigation."""
    page.goto(f"{system.airflow_url}/plugin/airlock")
    project = page.frame_locator("iframe[title='Airlock']").get_by_role("region", name=PROJECT)
    project.get_by_role("row").first.wait_for()
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=FOLDER / "airlock-page.png")


def mlflow_curves(page: Page, system: System, run_id: str) -> None:
    """The curves of that run, as its engineer follows them."""
    experiment = system.mlflow("runs/get", run_id=run_id)["run"]["info"]["experiment_id"]
    page.goto(f"{system.mlflow_url}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    page.wait_for_timeout(SETTLE_MS)
    assistant = page.get_by_label("Close", exact=True)
    if assistant.count():
        assistant.first.click()
    page.goto(
        f"{system.mlflow_url}/#/experiments/{experiment}/runs/{run_id}/model-metrics?workflowType=machine_learning"
    )
    page.get_by_text("accuracy_top1").first.wait_for()
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=FOLDER / "mlflow-curves.png")


def api_page(page: Page, system: System) -> None:
    """The API's own page, with one of the demo's digits on it."""
    page.goto(f"{system.front}/{PROJECT}/")
    digit = FilePayload(name="digit.png", mimeType="image/png", buffer=pictures()[5].png)
    page.get_by_label("Choose a picture").set_input_files(digit)
    page.locator("#answer").wait_for()
    page.screenshot(path=FOLDER / "api-page.png", full_page=True)


def screenshot_around(page: Page, shown: Locator, path: Path) -> None:
    """A picture of the part of the page that holds these elements."""
    boxes = [box for element in shown.all() if (box := element.bounding_box())]
    left, top = (min(box[side] for box in boxes) - MARGIN for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + MARGIN
    bottom = max(box["y"] + box["height"] for box in boxes) + MARGIN
    page.screenshot(path=path, clip={"x": left, "y": top, "width": right - left, "height": bottom - top})


if __name__ == "__main__":
    main()
