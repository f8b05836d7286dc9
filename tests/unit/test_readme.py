"""What the documentation names is there: commands, files, tests, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.bake_limits import BakeLimits
from include.gate import GateThresholds
from include.project import AlertRouting, Project, load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATING = (ROOT / "docs" / "operating.md").read_text()
FOLDERS = ("dags", "plugins", "include", "images", "scripts", "tests", "docs")

FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAKE = re.compile(r"^make ([a-z][a-z0-9-]*)", re.MULTILINE)
TEST = re.compile(r"(?:`|::)(test_\w+)`")
# A path of the repository, plainly written; one with a placeholder is an example.
PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*")


def code(page: Path) -> Iterator[str]:
    """What a page shows as code: blocks and words."""
    text = page.read_text()
    yield from FENCE.findall(text)
    yield from INLINE.findall(FENCE.sub("", text))


def make_words() -> set[str]:
    """The words that `make` lists."""
    return set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def rows(name: str) -> bool:
    """Whether a table of docs/operating.md has a row for a setting."""
    return any(f"`{name}`" in line.split("|")[1] for line in OPERATING.splitlines() if line.startswith("|"))


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The names of all test functions."""
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_command_of_a_page_is_one(page: Path) -> None:
    named = {word for text in code(page) for word in MAKE.findall(text)}
    assert named <= make_words()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = {text for text in code(page) if PATH.fullmatch(text)}
    assert sorted(text for text in named if not (ROOT / text).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path, tests: set[str]) -> None:
    assert set(TEST.findall(page.read_text())) <= tests


def test_every_guarantee_has_its_test() -> None:
    section = (ROOT / "README.md").read_text().split("## What it guarantees")[1].split("\n## ")[0]
    guarantees = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert guarantees
    assert [line for line in guarantees if not TEST.search(line)] == []


def test_the_project_that_readme_shows_is_one_on_a_machine_without_a_gpu(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "cats.yaml").write_text(example)
    assert load(tmp_path / "cats.yaml", {"AIRLOCK_DEVICE": "cpu"}).device == "cpu"


def test_every_command_and_setting_is_explained() -> None:
    settings = re.findall(r"^([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    fields = [name for name in Project.model_fields if name not in {"name", "gate", "bake", "alerts"}]
    fields += [f"gate.{name}" for name in GateThresholds.model_fields]
    fields += [f"bake.{name}" for name in BakeLimits.model_fields]
    fields += [f"alerts.{name}" for name in AlertRouting.model_fields]
    words = [f"make {word}" for word in make_words() - {"help"}]
    assert [name for name in (*settings, *fields, *words) if not rows(name)] == []
