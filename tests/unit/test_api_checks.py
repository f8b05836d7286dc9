import base64
import json

import pytest

from include.api_checks import Answer, CheckFailed, GoldenSet, read_golden, replay_golden

GOLDEN = read_golden(
    json.dumps(
        {"images": [{"name": "a", "content": base64.b64encode(b"a").decode(), "probabilities": {"0": 0.4, "1": 0.6}}]}
    ).encode()
)


class Says:
    def __init__(self, body: str, status: int = 200) -> None:
        self.body, self.status = body, status

    def get(self, url: str) -> Answer:
        raise AssertionError

    def post(self, url: str, body: bytes) -> Answer:
        assert body == b"a"
        return Answer(url, "POST", self.status, self.body.encode(), 0.5)


def replay(body: str, status: int = 200, golden: GoldenSet = GOLDEN) -> None:
    replay_golden(Says(body, status), "http://x", golden, 1e-3)


def test_what_was_recorded_is_accepted_within_the_tolerance() -> None:
    replay('{"probabilities": {"0": 0.4009, "1": 0.5991}}')


@pytest.mark.parametrize(
    "body",
    [
        '{"probabilities": {"0": 0.402, "1": 0.598}}',
        '{"probabilities": {"0": NaN, "1": NaN}}',
        '{"probabilities": {"0": 0.4, "1": NaN}}',
        '{"probabilities": {"0": "0.4", "1": "0.6"}}',
        '{"probabilities": {"0": 0.4}}',
        '{"probabilities": {"0": 0.4, "1": 0.6, "2": 0}}',
        '{"probabilities": null}',
        "{}",
        "[]",
        "not JSON",
    ],
)
def test_anything_else_is_refused_with_the_url_and_the_time(body: str) -> None:
    with pytest.raises(CheckFailed, match=r"POST http://x/predict: status 200 after 0\.50 s"):
        replay(body)


def test_another_status_is_refused() -> None:
    with pytest.raises(CheckFailed, match="status 503"):
        replay('{"probabilities": {"0": 0.4, "1": 0.6}}', status=503)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"images": []}', b'{"images": [{"name": "a"}]}'])
def test_golden_predictions_that_prove_nothing_are_refused(body: bytes) -> None:
    with pytest.raises(CheckFailed, match="cannot be read"):
        read_golden(body)
