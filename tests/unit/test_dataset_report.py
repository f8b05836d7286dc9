"""What preflight found, as programs read it and as a person sees it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainer import dataset_page, dataset_report, preflight, report_files, split
from trainer.catalogue import Diff, Record
from trainer.dataset_report import SHOWN, DatasetReport, Findings, Parent, as_json, build
from trainer.directory import Entry
from trainer.layout import Place, layout_of, place
from trainer.memory import for_pictures
from trainer.pictures import Examined, examine
from trainer.preflight import Limits
from trainer.split import Excluded
from trainer.thumbnails import thumbnail

ORIENTATION = 0x0112
FIRST = Parent(None, "a sample of all: this is the first snapshot")
NASTY = """<script>alert(1)</script>'"&amp;\u202egnp"""


def md5(content: str) -> str:
    return hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()


def found(
    files: Mapping[str, str], bad: Mapping[str, str] | None = None, problems: Iterable[str] = (), parent: Parent = FIRST
) -> Findings:
    """Findings on files, given as contents by path; `bad` are causes by path."""
    causes = bad or {}
    layout = layout_of(files)
    entries = [Entry(md5(content), path) for path, content in files.items()]
    places = (place(path, layout) for path in files)
    division = split.divide((entry for entry in entries if entry.relpath not in causes), layout, 0.2)
    unusable = [Excluded(*each) for each in causes.items()]
    return Findings(
        record=Record(
            id="20261123T171409123Z-c71581aa", project="pets", bucket="pets-train", md5="c71581aa.dir",
            created_at="2026-11-23T17:14:09.123Z", listing_digest="", count=len(files), bytes=2_000_000, classes={},
            layout=layout, parent=None, diff=Diff(added=0, removed=0, changed=0), triggered_by="", seconds={},
        ),
        entries=entries,
        labels=sorted({where.label for where in places if isinstance(where, Place)}),
        division=division,
        bad=unusable,
        report=preflight.inspect(division, unusable),
        problems=list(problems),
        limits=Limits(min_images_per_class=10, max_bad_share=0.05),
        parent=parent,
    )  # fmt: skip


def pets(count: int = 30, labels: str = "ab") -> dict[str, str]:
    return {f"{label}/{n}.png": f"{label}{n}" for label in labels for n in range(count)}


def page(report: DatasetReport) -> str:
    return dataset_page.draw(report, {})


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def test_every_file_is_counted_once_and_named_where_something_is_wrong_with_it() -> None:
    files = pets() | {
        "a/copy.png": "a0",
        "a/another copy.png": "a0",
        "a/both.png": "x",
        "b/both.png": "x",
        "b/broken.png": "broken",
        "README.md": "readme",
    }
    report = build(found(files, bad={"b/broken.png": "not a picture"}))
    counts = report.counts
    assert (counts.train + counts.val, counts.duplicates, counts.conflicts, counts.unusable, counts.misplaced) == (
        60, 2, 2, 1, 1,
    )  # fmt: skip
    assert counts.files == len(files) == 60 + 2 + 2 + 1 + 1
    assert [(each.relpath, each.cause) for each in report.unusable] == [("b/broken.png", "not a picture")]
    assert report.unusable[0].remedy == "Move it out of the class folders, or delete it."
    [duplicates] = report.duplicates
    assert (duplicates.kept, duplicates.left_out) == ("a/0.png", ("a/another copy.png", "a/copy.png"))
    [conflict] = report.conflicts
    assert (conflict.labels, conflict.files) == (("a", "b"), ("a/both.png", "b/both.png"))
    assert [each.relpath for each in report.misplaced] == ["README.md"]
    words = Elements(page(report)).words
    for name in ("a/copy.png", "a/both.png", "b/broken.png", "README.md", "not a picture", report.unusable[0].remedy):
        assert name in words


def test_new_is_what_the_parent_lacks_whatever_its_name() -> None:
    parent = Parent(frozenset(md5(f"{label}{n}") for label in "ab" for n in range(25)), "new against the snapshot 1")
    files = pets() | {"a/renamed.png": "a0"}
    del files["a/0.png"]
    report = build(found(files, parent=parent))
    assert {each.label: each.new for each in report.classes} == {"a": 5, "b": 5}
    assert {each.relpath for each in report.contact_sheet.shown} == {
        f"{label}/{n}.png" for label in "ab" for n in range(25, 30)
    }
    assert "10 of 10, new against the snapshot 1." in Elements(page(report)).words


def test_without_a_parent_the_sheet_is_a_sample_and_nothing_is_called_new() -> None:
    report = build(found(pets()))
    assert {each.new for each in report.classes} == {None}
    assert report.contact_sheet.pictures == 60
    words = Elements(page(report)).words
    assert "A sample" in words
    assert "What is new" not in words


def test_the_sheet_is_spread_over_the_classes_a_small_one_whole() -> None:
    files = pets(500, "abc") | {f"few/{n}.png": f"few{n}" for n in range(4)}
    shown = [each.label for each in build(found(files)).contact_sheet.shown]
    assert len(shown) == SHOWN
    assert shown.count("few") == 4
    assert {shown.count(label) for label in "abc"} <= {18, 19}


def test_with_more_classes_than_places_every_picture_is_of_another_class() -> None:
    shown = build(found({f"{label}/{n}.png": f"{label}/{n}" for label in range(200) for n in range(3)})).contact_sheet
    assert len({each.label for each in shown.shown}) == len(shown.shown) == SHOWN


def test_the_same_findings_give_the_same_report_in_whatever_order_the_files_are_listed() -> None:
    files = pets(100) | {"a/copy.png": "a0", "a/both.png": "x", "b/both.png": "x", "b/broken.png": "broken"}
    bad = {"b/broken.png": "not a picture", "a/1.png": "an empty file"}
    there, back = (build(found(dict(order(files.items())), dict(order(bad.items())))) for order in (list, reversed))
    assert as_json(there) == as_json(back)
    assert page(there) == page(back)


def test_which_pictures_are_shown_does_not_depend_on_their_names() -> None:
    files = pets(200)
    renamed = {f"{path[0]}/{md5(path)}.png": content for path, content in files.items()}
    one, other = ({each.md5 for each in build(found(each)).contact_sheet.shown} for each in (files, renamed))
    assert one == other


@pytest.mark.parametrize(
    ("sizes", "small"),
    [
        ({"a": 40, "b": 19}, ["b"]),  # below twice the ten that a class needs
        ({"a": 40, "b": 20}, []),
        ({"a": 900, "b": 900, "c": 80}, ["c"]),  # below a tenth of the median
        ({"a": 15, "b": 3}, ["b", "a"]),  # the smallest first
    ],
)
def test_a_class_is_nearly_empty_by_a_rule_that_the_report_tells(sizes: dict[str, int], small: list[str]) -> None:
    files = {f"{label}/{n}.png": f"{label}{n}" for label, size in sizes.items() for n in range(size)}
    report = build(found(files))
    assert [each.label for each in report.small_classes.classes] == small
    assert report.small_classes.rule.startswith("fewer than 20 pictures")


def test_names_are_text_and_never_markup() -> None:
    files = pets() | {
        f"{NASTY}/{NASTY}.png": "1",
        f"a/{NASTY}.png": "a0",
        f"b/{NASTY}.png": "1",
        f"a/bad {NASTY}.png": "2",
        f"a/new {NASTY}.png": "4",
        NASTY.replace("/", ""): "3",
    }
    report = build(found(files, {f"a/bad {NASTY}.png": f"cannot be decoded: {NASTY}"}, [f"the class {NASTY!r} is"]))
    text = page(report)
    elements = Elements(text)
    assert not {"script", "iframe", "object", "link", "base", "form"} & set(elements.tags)
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert ("title", f"a/new {NASTY}.png") in elements.attributes
    assert elements.words.count("<script>") >= 5  # told, as text
    assert json.loads(as_json(report))["conflicts"][0]["labels"] == sorted(["<script>alert(1)<", "b"])


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    files = pets() | {"a/https://evil.example/x.png": "url"}
    elements = Elements(page(build(found(files))))
    addresses = [value for name, value in elements.attributes if name in {"src", "href", "srcset", "action"}]
    assert addresses == []
    policy = next(value for name, value in elements.attributes if value and value.startswith("default-src"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_long_lists_are_cut_on_the_page_with_the_rest_counted_and_whole_in_the_json() -> None:
    files = pets() | {f"a/copy {n:04}.png": f"a{n % 3}" for n in range(3000)}
    files |= {f"b/bad {n:03}.png": f"bad{n}" for n in range(200)}
    files |= {f"{n}.txt": f"t{n}" for n in range(70)}
    bad = {path: "not a picture" for path in files if "bad" in path}
    report = build(found(files, bad))
    text = page(report)
    assert len(text) < 60_000
    words = Elements(text).words
    assert "Exact duplicates 3,000" in words
    assert "and 992 more, all in report.json" in words  # of one picture's thousand copies
    assert "and 150 more, all in report.json" in words
    assert "and 20 more, all in report.json" in words
    document = json.loads(as_json(report))
    assert sum(len(each["left_out"]) for each in document["duplicates"]) == 3000
    assert (len(document["unusable"]), len(document["misplaced"])) == (200, 70)


def test_many_classes_are_cut_on_the_page_too() -> None:
    report = build(found({f"class {n}/{m}.png": f"{n}/{m}" for n in range(300) for m in range(2)}))
    assert "and 240 more smaller classes" in Elements(page(report)).words
    assert len(json.loads(as_json(report))["classes"]) == 300


@pytest.mark.parametrize("files", [{}, {"README.md": "x"}, {"a/1.png": "1"}], ids=["empty", "no class", "one picture"])
def test_a_dataset_with_next_to_nothing_in_it_has_a_report(files: dict[str, str]) -> None:
    report = build(found(files, problems=["it has no class, at least two are needed"]))
    words = Elements(page(report)).words
    assert "Refused: it cannot be trained on." in words
    assert "it has no class, at least two are needed" in words
    assert report.counts.files == len(files)


def test_a_dataset_that_is_refused_says_so_and_another_that_it_can_be_trained_on() -> None:
    assert "Can be trained on." in Elements(page(build(found(pets())))).words
    assert "Can be trained on." not in Elements(page(build(found(pets(), problems=["too few"])))).words


class Pictures:
    """Real pictures on a disk, by content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good: dict[str, Examined] = {}

    def path(self, content: str) -> Path:
        return self.folder / content

    def draw(self, files: Iterable[str], size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
        for content in map(md5, files):
            Image.effect_noise(size, 90).convert(mode).save(self.path(content), "PNG")
            self.good[content] = examine(self.path(content), for_pictures())


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    (tmp_path / "cache").mkdir()
    return Pictures(tmp_path / "cache")


def written(pictures: Pictures, findings: Findings, folder: Path) -> tuple[Any, str]:
    document, html, sheet = report_files.write(folder, findings, pictures.path, pictures.good)
    assert (document.name, html.name, sheet.name) == ("report.json", "report.html", "contact-sheet.jpg")
    return json.loads(document.read_text()), html.read_text()


def test_new_pictures_and_label_conflicts_are_shown(pictures: Pictures, tmp_path: Path) -> None:
    files = pets(12) | {"a/both.png": "x", "b/both.png": "x"}
    pictures.draw(files.values(), size=(300, 120))
    document, text = written(pictures, found(files), tmp_path / "report")
    sources = [value or "" for name, value in Elements(text).attributes if name == "src"]
    assert len(sources) == 24 + 1
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert text.count('width="128" height="51"') == 25
    assert document["counts"]["files"] == 26
    assert len(text) < 25 * 10_000


@pytest.mark.parametrize("scale", [1, 3, 5, 9, 20])
def test_a_thumbnail_of_a_photograph_is_small_and_upright_whatever_its_size(tmp_path: Path, scale: int) -> None:
    photo = Image.new("RGB", (120 * scale, 90 * scale))
    photo.paste("red", (0, 0, 60 * scale, 90 * scale))
    turned = Image.Exif()
    turned[ORIENTATION] = 6  # a camera held upright: what is left in the file is on top
    photo.save(tmp_path / "photo", "JPEG", exif=turned)
    room = for_pictures()
    small = thumbnail(tmp_path / "photo", examine(tmp_path / "photo", room), room)
    assert small
    width, height = (90, 120) if scale == 1 else (96, 128)
    assert (small.width, small.height) == (width, height)
    drawn = Image.open(io.BytesIO(small.content))
    top, bottom = (np.asarray(drawn)[height * quarter // 4, width // 2] for quarter in (1, 3))
    assert top[0] > 200 > 50 > bottom[0]


def test_a_contact_sheet_has_two_rows_of_small_pictures_whatever_their_sizes(
    pictures: Pictures, tmp_path: Path
) -> None:
    files = pets(20)
    pictures.draw(list(files.values())[:20], size=(300, 20))
    pictures.draw(list(files.values())[20:], size=(20, 300))
    written(pictures, found(files), tmp_path / "report")
    sheet = tmp_path / "report" / "contact-sheet.jpg"
    assert Image.open(sheet).size == (8 * 64, 2 * 64)
    assert sheet.stat().st_size < 60_000


def test_a_contact_sheet_of_few_pictures_has_one_row(pictures: Pictures, tmp_path: Path) -> None:
    files = pets(2)
    pictures.draw(files.values())
    written(pictures, found(files), tmp_path / "report")
    assert Image.open(tmp_path / "report" / "contact-sheet.jpg").size == (8 * 64, 64)


def test_a_picture_that_cannot_be_drawn_costs_its_thumbnail_alone(pictures: Pictures, tmp_path: Path) -> None:
    files = pets(12)
    pictures.draw(files.values(), size=(20, 20), mode="L")
    pictures.path(md5("a3")).unlink()
    _, text = written(pictures, found(files), tmp_path / "report")
    assert Elements(text).tags.count("img") == 23
    assert Elements(text).words.count("no picture") == 1


def test_a_name_that_utf8_cannot_hold_is_told_all_the_same(pictures: Pictures, tmp_path: Path) -> None:
    findings = found(pets(12))
    pictures.draw(pets(12).values())
    odd = Excluded("a/\ud800.png", "not a picture")
    document, text = written(pictures, Findings(**{**vars(findings), "bad": [odd]}), tmp_path / "report")
    assert document["unusable"][0]["relpath"] == "a/\ud800.png"
    assert "a/\\ud800.png" in text


def test_a_report_that_cannot_be_made_stops_no_training(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dataset_report, "build", lambda _: 1 / 0)
    assert report_files.write(tmp_path / "report", found(pets()), pictures.path, {}) == ()
    assert "report.failed" in caplog.text
