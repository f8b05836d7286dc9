from pathlib import Path

import pytest

from include.deployment import deploy
from include.haproxy_config import Routed
from include.project import load_all
from include.reconcile import run_all
from include.releases import Route
from include.s3 import Stored
from include.setup import routes
from tests.simulation.reality import PROJECT, Reality, wish


def test_one_projects_trouble_does_not_keep_the_others_from_serving() -> None:
    done = []

    def good(name: str) -> str:
        done.append(name)
        return name

    def bad() -> str:
        raise RuntimeError("its bucket is gone")

    assert not run_all({"a": bad, "b": lambda: good("b"), "c": lambda: good("c")})
    assert sorted(done) == ["b", "c"]
    assert run_all({"b": lambda: good("b")})


def test_a_project_whose_file_is_broken_is_still_put_back(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("epochs: many")
    projects = load_all(tmp_path, {})
    assert projects.or_defaults("broken").name == "broken"
    assert projects.routed == {"broken": Routed(2, 6000)}


def test_routes_follow_the_records_also_in_the_middle_of_a_deploy() -> None:
    reality = Reality()
    names = frozenset({PROJECT.name, "never-released"})
    assert routes(reality.world().releases, names, lambda _: None) == {}
    deploy(reality.world(), PROJECT, wish(1, None))
    assert routes(reality.world().releases, names, lambda _: None) == {PROJECT.name: Route("blue")}


def test_a_state_that_cannot_be_read_leaves_its_route_and_the_others_follow_theirs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reality = Reality()
    deploy(reality.world(), PROJECT, wish(1, None))
    reality.objects["releases/spoilt/state.json"] = Stored(b"{", "1")
    found = routes(reality.world().releases, frozenset({PROJECT.name, "spoilt"}), lambda _: Route("green"))
    assert found == {PROJECT.name: Route("blue"), "spoilt": Route("green")}
    assert "releases/spoilt/state.json cannot be read" in caplog.text
