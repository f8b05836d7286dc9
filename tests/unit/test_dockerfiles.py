from __future__ import annotations

from pathlib import Path

import pytest

DOCKERFILES = sorted((Path(__file__).parents[2] / "images").glob("*/Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_finds_python_where_its_base_has_it(path: Path) -> None:
    """Debian has it in /usr/bin, the public image python:3.11-slim-bookworm in /usr/local/bin."""
    assert "/usr/bin/python" not in path.read_text()
    assert "/usr/local/bin/python" not in path.read_text()
