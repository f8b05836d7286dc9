"""The report as a page for people: one file, without scripts, that needs nothing from anywhere.

MLflow shows it in a frame. Names in it were written by strangers: each goes through `_text`.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TypeVar

from trainer.dataset_report import ClassBalance, Conflict, DatasetReport, Duplicates, Shown, Unusable
from trainer.thumbnails import Thumbnail

T = TypeVar("T")

CLASSES_SHOWN = 60
FILES_SHOWN = 50
CONFLICTS_SHOWN = 24
FILES_OF_ONE = 8
"""Files named of one content; there may be thousands of copies."""

STYLE = (Path(__file__).with_name("dataset_page.css")).read_text()


def pictured(report: DatasetReport) -> list[str]:
    """The md5s of the pictures that the page shows."""
    conflicts = (each.md5 for each in report.conflicts[:CONFLICTS_SHOWN])
    return list(dict.fromkeys([*(each.md5 for each in report.contact_sheet.shown), *conflicts]))


def draw(report: DatasetReport, thumbnails: Mapping[str, Thumbnail]) -> str:
    """The page, with these thumbnails by md5; where one is missing, the name stands alone."""
    body = "\n".join(
        [
            _head(report),
            _balance(report),
            _unusable(report.unusable),
            _conflicts(report.conflicts, thumbnails),
            _small_classes(report),
            _contact_sheet(report, thumbnails),
            _duplicates(report.duplicates),
            _misplaced(report),
        ]
    )
    title = _text(f"Dataset of {report.project}, {report.snapshot.id}")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _head(report: DatasetReport) -> str:
    snapshot, counts = report.snapshot, report.counts
    new = report.contact_sheet.pictures if _knows_new(report) else None
    left_out = counts.files - counts.train - counts.val
    tiles = [
        ("training", counts.train),
        ("validation", counts.val),
        ("classes", len(report.classes)),
        ("new", new),
        ("left out", left_out),
    ]
    numbers = "".join(f"<li><b>{_number(value)}</b> {name}</li>" for name, value in tiles if value is not None)
    facts = {
        "Snapshot": snapshot.id,
        "md5": snapshot.md5,
        "Parent": snapshot.parent or "none: the first snapshot",
        "Taken": snapshot.created_at,
        "Bucket": snapshot.bucket,
        "Files": f"{counts.files:,} ({_bytes(snapshot.bytes)})",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    return f"""<header>
<p class="kind">Dataset report</p>
<h1>{_text(report.project)}</h1>
{_verdict(report.problems)}
<ul class="tiles">{numbers}</ul>
<dl>{rows}</dl>
</header>"""


def _verdict(problems: Sequence[str]) -> str:
    if not problems:
        return '<p class="verdict good"><b>Can be trained on.</b></p>'
    items = "".join(f"<li>{_text(problem)}</li>" for problem in problems[:FILES_SHOWN])
    return (
        '<div class="verdict bad"><p><b>Refused: it cannot be trained on.</b></p>'
        f"<ul>{items}{_rest(len(problems) - FILES_SHOWN, 'li')}</ul></div>"
    )


def _balance(report: DatasetReport) -> str:
    shown = sorted(report.classes, key=lambda each: (-_size(each), each.label))
    most = max((_size(each) for each in shown), default=0)
    counts = report.counts
    legend = (
        f'<p class="legend"><span class="key train"></span> training {counts.train:,} '
        f'<span class="key val"></span> validation {counts.val:,}</p>'
    )
    rows = "".join(_bar(each, most) for each in shown[:CLASSES_SHOWN])
    rest = _rest(len(shown) - CLASSES_SHOWN, "p", "smaller classes")
    return _section("Class balance", len(shown), f'{legend}<div class="bars">{rows}</div>{rest}')


def _bar(each: ClassBalance, most: int) -> str:
    train, val = (100 * n / most if most else 0 for n in (each.train, each.val))
    new = f"{each.new:,} new" if each.new else ""
    return (
        f'<div class="row"><span class="label">{_text(each.label)}</span>'
        f'<span class="bar" aria-hidden="true"><i class="train" style="width:{train:.2f}%"></i>'
        f'<i class="val" style="width:{val:.2f}%"></i></span>'
        f'<span class="number">{each.train:,} + {each.val:,}</span><span class="new">{new}</span></div>'
    )


def _contact_sheet(report: DatasetReport, thumbnails: Mapping[str, Thumbnail]) -> str:
    sheet = report.contact_sheet
    note = f"{len(sheet.shown):,} of {sheet.pictures:,}, {sheet.note}."
    figures = "".join(_figure(each, thumbnails.get(each.md5)) for each in sheet.shown)
    title = "What is new" if _knows_new(report) else "A sample"
    return _section(title, sheet.pictures, f'<p class="note">{_text(note)}</p><div class="sheet">{figures}</div>')


def _figure(each: Shown, small: Thumbnail | None) -> str:
    name = each.relpath.rpartition("/")[2]
    caption = f"<b>{_text(each.label)}</b><span>{_text(name)}</span>"
    return f'<figure title="{escape(each.relpath)}">{_image(small)}<figcaption>{caption}</figcaption></figure>'


def _image(small: Thumbnail | None) -> str:
    if small is None:
        return '<span class="none">no picture</span>'
    content = base64.b64encode(small.content).decode()
    return f'<img alt="" width="{small.width}" height="{small.height}" src="data:image/jpeg;base64,{content}">'


def _unusable(files: Sequence[Unusable]) -> str:
    by_remedy: defaultdict[str, list[Unusable]] = defaultdict(list)
    for each in files:
        by_remedy[each.remedy].append(each)
    groups = sorted(by_remedy.items(), key=lambda group: (-len(group[1]), group[0]))
    parts = "".join(
        f"<h3>{_text(advice)} <small>{_files(len(group))}</small></h3>"
        + _list(group, lambda each: f"{_text(each.relpath)} <small>{_text(each.cause)}</small>")
        for advice, group in groups
    )
    return _section("Files that cannot be used", len(files), parts)


def _conflicts(conflicts: Sequence[Conflict], thumbnails: Mapping[str, Thumbnail]) -> str:
    rows = "".join(
        f'<div class="conflict">{_image(thumbnails.get(each.md5))}<div><b>{" or ".join(map(_text, each.labels))}</b>'
        f"<ul>{_few(each.files)}</ul></div></div>"
        for each in conflicts[:CONFLICTS_SHOWN]
    )
    note = '<p class="note">The same picture under several labels. None of them is used: delete the wrong ones.</p>'
    rest = _rest(len(conflicts) - CONFLICTS_SHOWN, "p", "pictures")
    return _section("Label conflicts", len(conflicts), f'{note}<div class="conflicts">{rows}</div>{rest}')


def _small_classes(report: DatasetReport) -> str:
    small = report.small_classes
    items = _list(small.classes, lambda each: f"{_text(each.label)} <small>{each.pictures:,}</small>")
    return _section(
        "Nearly empty classes", len(small.classes), f'<p class="note">{_text(small.rule.capitalize())}.</p>{items}'
    )


def _duplicates(groups: Sequence[Duplicates]) -> str:
    files = sum(len(each.left_out) for each in groups)
    items = _list(groups, lambda each: f"{_text(each.kept)}<ul>{_few(each.left_out)}</ul>")
    note = '<p class="note">The first is used, its copies are left out. They do no harm.</p>'
    return _section("Exact duplicates", files, note + items)


def _misplaced(report: DatasetReport) -> str:
    items = _list(report.misplaced, lambda each: f"{_text(each.relpath)} <small>{_text(each.cause)}</small>")
    return _section("Misplaced files", len(report.misplaced), items)


def _section(title: str, count: int, content: str) -> str:
    if not count:
        return f'<section class="nothing"><h2>{title}</h2> <p>none</p></section>'
    return f"<section><h2>{title} <small>{count:,}</small></h2>\n{content}</section>"


def _list(items: Sequence[T], markup: Callable[[T], str]) -> str:
    """The first of these items; the rest is counted."""
    first = "".join(f"<li>{markup(item)}</li>" for item in items[:FILES_SHOWN])
    return f'<ul class="files">{first}{_rest(len(items) - FILES_SHOWN, "li")}</ul>'


def _few(names: Sequence[str]) -> str:
    first = "".join(f"<li>{_text(name)}</li>" for name in names[:FILES_OF_ONE])
    return first + _rest(len(names) - FILES_OF_ONE, "li")


def _rest(count: int, tag: str, what: str = "") -> str:
    if count <= 0:
        return ""
    words = f"and {count:,} more {what}".rstrip()
    return f'<{tag} class="rest">{words}, all in report.json</{tag}>'


def _text(name: str) -> str:
    """A name as text, in a direction of its own: one that is written from the right turns nothing around it."""
    return f"<bdi>{escape(name)}</bdi>"


def _knows_new(report: DatasetReport) -> bool:
    return any(each.new is not None for each in report.classes)


def _size(each: ClassBalance) -> int:
    return each.train + each.val


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count != 1 else ''}"


def _number(value: int) -> str:
    return f"{value:,}"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
