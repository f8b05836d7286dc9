"""Requests made from the API's own OpenAPI description, valid ones and others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import schemathesis
from api.app import State
from api.application import application
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.unit.test_api_app import warmed

EXAMPLES = 50
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The schema of an API that serves the classifier of colours."""
    state = warmed(State("paint", "20261123T171409123Z-v3", "sha256:api"), tmp_path_factory.mktemp("model"))
    return schemathesis.openapi.from_asgi("/openapi.json", application(state))


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_described_and_never_a_server_error(described: Any, mode: GenerationMode) -> None:
    asked: Counter[str] = Counter()
    for found in described.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            asked[case.path] += 1
            case.call_and_validate(checks=CHECKS)

        check()
    assert asked["/predict"] >= EXAMPLES
    assert asked["/predict/batch"] >= EXAMPLES
