"""One running system for all of these tests, brought up as the README says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.lab import Lab, remove_project
from tests.e2e.system import System, await_, make


@pytest.fixture(scope="session")
def demo() -> str:
    """What `make demo` printed. It must have ended well."""
    return make("demo")


@pytest.fixture(scope="session")
def system(demo: str) -> System:
    """The system that `make demo` brought up, its first release promoted: the demo ends a little before."""
    system = System()
    await_("the demo's first release to be promoted", lambda: system.champion("digits"), 60)
    return system


@pytest.fixture(scope="module")
def lab(system: System, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A project of this module's own on the running system; it is removed, data too, at the end."""
    lab = Lab(system, name="test-" + request.module.__name__.rsplit("test_", 1)[-1].replace("_", "-"))
    yield lab
    remove_project(system, lab.name)
