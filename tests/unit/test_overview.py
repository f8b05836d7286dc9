"""The Airlock page's data and its plot."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.accuracy_plot import HEIGHT, WIDTH, Point, plot
from include.deployment import deploy, promote, verify
from include.overview import SNAPSHOTS_SHOWN, overview
from include.s3 import Stored
from tests.simulation.reality import PROJECT, Reality, wish

NOW = datetime(2026, 11, 29, 2, 0, tzinfo=UTC)


class Records:
    """The catalogue in memory: a record for every snapshot that is asked for."""

    def read(self, key: str) -> Stored | None:
        snapshot = key.rpartition("/")[2].removesuffix(".json")
        body = {"id": snapshot, "created_at": "2026-09-01T10:15:00Z", "count": 5, "bytes": 9, "classes": {"0": {}}}
        return Stored(json.dumps(body | {"diff": {"added": 3, "removed": 0, "changed": 1}}).encode(), "e")


def test_a_project_shows_what_serves_its_releases_in_order_and_its_newest_snapshots() -> None:
    reality = Reality()
    for version in (1, 2):
        release = deploy(reality.world(), PROJECT, wish(version, version - 1 or None)).release_id
        verify(reality.world(), PROJECT, release)
        promote(reality.world(), PROJECT, release)
        reality.now += timedelta(hours=1)
    ids = [f"202609{day:02d}T101500000Z-{day:08x}" for day in range(1, 15)]
    found = overview(PROJECT.name, reality.world().releases, Records(), ids)  # type: ignore[arg-type]
    assert found.serving is not None
    assert (found.serving.record.model_version, found.serving.accuracy) == ("2", 0.97)
    assert [one.record.model_version for one in found.promotions] == ["1", "2"]
    assert [one.id for one in found.snapshots] == ids[::-1][:SNAPSHOTS_SHOWN]


def test_a_new_project_has_nothing_to_show() -> None:
    found = overview("digits", Reality().world().releases, Records(), [])  # type: ignore[arg-type]
    assert (found.serving, found.promotions, found.last, found.snapshots) == (None, (), None, ())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_every_release_is_a_dot_within_the_picture(accuracies: list[float]) -> None:
    points = [Point(NOW + timedelta(hours=n), value, f"r<{n}>") for n, value in enumerate(accuracies)]
    picture = ElementTree.fromstring(plot(points))
    dots = picture.findall("circle")
    assert len(dots) == len(points)
    for dot in dots:
        assert 0 <= float(dot.attrib["cx"]) <= WIDTH
        assert 0 <= float(dot.attrib["cy"]) <= HEIGHT


def test_a_better_release_is_higher_and_a_later_one_further_right() -> None:
    dots = ElementTree.fromstring(plot([Point(NOW, 0.9, "a"), Point(NOW + timedelta(1), 0.95, "b")])).findall("circle")
    assert float(dots[0].attrib["cx"]) < float(dots[1].attrib["cx"])
    assert float(dots[0].attrib["cy"]) > float(dots[1].attrib["cy"])
    assert "a: 90.0%, 2026-11-29 02:00 UTC" in ElementTree.tostring(dots[0]).decode()


@pytest.mark.parametrize("count", [1, 2])
def test_the_plot_says_in_words_what_it_shows(count: int) -> None:
    label = ElementTree.fromstring(plot([Point(NOW, 0.9, "a")] * count)).attrib["aria-label"]
    assert label == f"Accuracy of {count} releases, from 90.0% to 90.0%"
