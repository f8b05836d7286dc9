from __future__ import annotations

import json

from api.scores import MAX_FLIPS, Answers, compare
from api.split import Picture
from hypothesis import given
from hypothesis import strategies as st

LABELS = ("cat", "dog", "owl")


def pictures(*labels: str) -> list[Picture]:
    return [Picture(md5=f"{n:032x}", relpath=f"{label}/{n}.png", label=label) for n, label in enumerate(labels)]


def test_both_models_are_scored_on_the_same_pictures() -> None:
    result = compare(
        pictures("cat", "cat", "dog", "dog", "dog"),
        2,
        Answers("new", ("cat", "dog"), ("cat", "dog", "dog", "dog", "dog")),
        Answers("old", ("cat", "dog"), ("cat", "cat", "dog", "cat", "cat")),
    )
    assert (result.challenger.correct, result.challenger.accuracy) == (4, 0.8)
    assert result.champion is not None
    assert result.champion.correct == 3
    assert {label: (each.n, each.correct) for label, each in result.champion.per_class.items()} == {
        "cat": (2, 2),
        "dog": (3, 1),
    }
    assert (result.n, result.excluded, result.won, result.lost) == (5, 2, 2, 1)
    assert [(flip.relpath, flip.champion, flip.challenger) for flip in result.flips] == [
        ("cat/1.png", "cat", "dog"),
        ("dog/3.png", "cat", "dog"),
        ("dog/4.png", "cat", "dog"),
    ]
    assert json.loads(result.model_dump_json(by_alias=True))["majority"] == {"class": "dog", "accuracy": 0.6}


def test_a_class_that_the_champion_does_not_know_counts_only_outside_what_is_shared() -> None:
    result = compare(
        pictures("cat", "owl"),
        0,
        Answers("new", LABELS, ("cat", "owl")),
        Answers("old", ("cat", "dog"), ("cat", "dog")),
    )
    assert result.champion is not None
    assert result.champion.accuracy == 0.5
    assert result.shared is not None
    assert (result.shared.n, result.shared.challenger_correct, result.shared.champion_correct) == (1, 1, 1)
    assert result.flips == []


def test_without_a_champion_there_is_nothing_to_compare() -> None:
    result = compare(pictures("cat", "dog"), 0, Answers("new", LABELS, ("cat", "cat")), None)
    assert (result.champion, result.shared, result.won, result.lost, result.flips) == (None, None, 0, 0, [])


def test_flips_are_listed_up_to_a_limit_but_all_counted_losses_first() -> None:
    count = MAX_FLIPS + 50
    result = compare(
        pictures(*["cat"] * count),
        0,
        Answers("new", LABELS, ["dog"] * 10 + ["cat"] * (count - 10)),
        Answers("old", LABELS, ["cat"] * 10 + ["dog"] * (count - 10)),
    )
    assert (result.won, result.lost, len(result.flips)) == (count - 10, 10, MAX_FLIPS)
    assert [flip.challenger for flip in result.flips[:11]] == ["dog"] * 10 + ["cat"]


@given(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 3), min_size=1, max_size=50))
def test_wins_less_losses_are_the_difference_in_correct_answers(rows: list[tuple[str, str, str]]) -> None:
    labels, new, old = zip(*rows, strict=True)
    result = compare(pictures(*labels), 0, Answers("new", LABELS, new), Answers("old", LABELS, old))
    assert result.shared is not None
    assert result.won - result.lost == result.shared.challenger_correct - result.shared.champion_correct
    assert sum(each.n for each in result.challenger.per_class.values()) == result.n == len(rows)
    assert sum(each.correct for each in result.challenger.per_class.values()) == result.challenger.correct
