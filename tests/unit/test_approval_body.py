"""What a person sees who is to approve a release."""

from __future__ import annotations

from typing import Any

from include.approval_body import approval_body
from include.gate import Comparison


def score(per_class: dict[str, tuple[int, int]], confusion: dict[str, dict[str, int]]) -> dict[str, Any]:
    correct, n = (sum(value[i] for value in per_class.values()) for i in (0, 1))
    rows = {name: {"correct": right, "n": n} for name, (right, n) in per_class.items()}
    return {
        "run_id": "r", "accuracy": correct / n, "correct": correct, "per_class": rows, "classes": list(per_class),
        "confusion": confusion,
    }  # fmt: skip


def compared(challenger: dict[str, Any], champion: dict[str, Any] | None, flips: list[dict[str, str]]) -> Comparison:
    shared = {"n": 10, "challenger_correct": 9, "champion_correct": 8} if champion else None
    return Comparison.model_validate(
        {
            "challenger": challenger, "champion": champion, "n": 10, "excluded": 0, "shared": shared,
            "majority": {"class": "cat", "accuracy": 0.5}, "won": 1, "lost": 1, "flips": flips,
        }
    )  # fmt: skip


FLIPS = [
    {"relpath": "cat/1.jpg", "md5": "a", "label": "cat", "champion": "cat", "challenger": "dog"},
    {"relpath": "dog/[x](http://evil)|`2.jpg", "md5": "b", "label": "dog", "champion": "cat", "challenger": "dog"},
]


def test_figures_confusion_and_changed_pictures_are_there() -> None:
    new = score({"cat": (4, 5), "dog": (5, 5)}, {"cat": {"cat": 4, "dog": 1}, "dog": {"dog": 5}})
    old = score({"cat": (5, 5), "dog": (3, 5)}, {})
    body = approval_body(compared(new, old, FLIPS), "deploy: 90.0 % against 80.0 %")
    assert body.startswith("deploy: 90.0 % against 80.0 %")
    assert "| `cat` | 5 | 4 | 5 |" in body
    assert "| `cat` | 4 | 1 |" in body
    assert "**Pictures lost: 1**\n\n- `cat/1.jpg`: was `cat`, now `dog`" in body
    assert "**Pictures won: 1**" in body


def test_a_strangers_file_name_is_shown_and_not_followed() -> None:
    new = score({"cat": (4, 5), "dog": (5, 5)}, {})
    assert "- `dog/[x](http://evil)\\| 2.jpg`: was" in approval_body(compared(new, new, FLIPS), "deploy")


def test_a_first_model_is_compared_with_nothing() -> None:
    body = approval_body(compared(score({"cat": (4, 5)}, {}), None, []), "deploy, the first model")
    assert "| `cat` | 5 | 4 | – |" in body


def test_of_many_classes_the_commonest_mistakes_are_shown() -> None:
    names = [f"c{number:02d}" for number in range(30)]
    confusion = {name: {name: 9, "c00": number} for number, name in enumerate(names)}
    new = score(dict.fromkeys(names, (9, 9)), confusion)
    body = approval_body(compared(new, None, []), "deploy")
    assert "| `c29` | `c00` | 29 |" in body
    assert "| `c01` | `c00`" not in body
