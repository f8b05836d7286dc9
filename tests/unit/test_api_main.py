from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api import __main__ as command
from api.model import Model

from tests.classifiers import colour_classifier


@pytest.fixture(autouse=True)
def _own_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_sigterm_while_a_model_loads_ends_with_143_and_is_not_taken_for_a_broken_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, result = tmp_path / "best.onnx", tmp_path / "result.json"
    weights.write_bytes(colour_classifier().SerializeToString())

    def stopped(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command, "read", lambda kind: kind.model_construct(result_path=result))
    monkeypatch.setattr(command, "evaluate", lambda settings: Model(weights, threads=1))
    monkeypatch.setattr(Model, "probabilities", stopped)
    assert command.main(["evaluate"]) == 143
    error = json.loads(result.read_text())["error"]
    assert error["kind"] == "interrupted"
    assert "SIGTERM" in error["message"]
