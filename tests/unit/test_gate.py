from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.gate import Comparison, GateThresholds, decide

THRESHOLDS = GateThresholds()


def score(per_class: dict[str, tuple[int, int]], classes: list[str] | None = None) -> dict[str, Any]:
    correct, n = (sum(value[i] for value in per_class.values()) for i in (0, 1))
    return {
        "run_id": "r",
        "accuracy": correct / n if n else 0.0,
        "correct": correct,
        "per_class": {name: {"n": value[1], "correct": value[0]} for name, value in per_class.items()},
        "classes": classes if classes is not None else list(per_class),
    }


def comparison(
    challenger: dict[str, tuple[int, int]],
    champion: dict[str, tuple[int, int]] | None = None,
    champion_classes: list[str] | None = None,
    excluded: int = 0,
    challenger_classes: list[str] | None = None,
) -> Comparison:
    """Scores as `{class: (correct, pictures)}`."""
    n = sum(pictures for _, pictures in challenger.values())
    commonest = max(challenger, key=lambda name: challenger[name][1]) if n else None
    shared = None
    if champion is not None:
        known = champion_classes or list(champion)
        both = [name for name in challenger if name in known]
        shared = {
            "n": sum(challenger[name][1] for name in both),
            "challenger_correct": sum(challenger[name][0] for name in both),
            "champion_correct": sum(champion[name][0] for name in both),
        }
    return Comparison.model_validate(
        {
            "challenger": score(challenger, challenger_classes),
            "champion": score(champion, champion_classes) if champion is not None else None,
            "n": n,
            "excluded": excluded,
            "majority": {"class": commonest, "accuracy": challenger[commonest][1] / n} if commonest else None,
            "shared": shared,
            "won": 3,
            "lost": 2,
            "flips": [],
        }
    )


def test_the_first_model_deploys_when_it_beats_the_majority_class_by_the_margin() -> None:
    decision = decide(comparison({"a": (48, 50), "b": (49, 50)}), THRESHOLDS)
    assert decision.deploy
    assert decision.reason == "deploy, the first model: 97.0 % on 100 pictures"


def test_the_first_model_stays_out_when_it_only_answers_the_majority_class() -> None:
    decision = decide(comparison({"a": (60, 60), "b": (0, 40)}), THRESHOLDS)
    assert not decision.deploy
    assert decision.reason == (
        "nothing deployed: 60.0 % on 100 pictures; "
        "60.0 % on all 100 pictures is not 10.0 points over always answering 'a' (60.0 %)"
    )


def test_a_better_challenger_replaces_the_champion() -> None:
    decision = decide(comparison({"a": (49, 50), "b": (49, 50)}, {"a": (48, 50), "b": (49, 50)}), THRESHOLDS)
    assert decision.deploy
    assert decision.reason == "deploy: 98.0 % against 97.0 % on 100 pictures (3 won, 2 lost)"


def test_the_champion_stays_when_the_challenger_is_only_as_good() -> None:
    scores = {"a": (48, 50), "b": (49, 50)}
    decision = decide(comparison(scores, scores), THRESHOLDS)
    assert not decision.deploy
    assert decision.reason.startswith("kept champion: 97.0 % against 97.0 % on 100 pictures")
    assert "gained 0 pictures, at least 1 must be gained" in decision.reason


def test_a_negative_gain_bears_that_loss_and_no_more() -> None:
    thresholds = GateThresholds(min_gain=-0.01)
    champion = {"a": (49, 50), "b": (49, 50)}
    assert decide(comparison({"a": (48, 50), "b": (49, 50)}, champion), thresholds).deploy
    assert not decide(comparison({"a": (48, 50), "b": (48, 50)}, champion), thresholds).deploy


def test_a_class_that_falls_keeps_the_champion_though_the_whole_is_better() -> None:
    new, old = {"a": (30, 30), "b": (5, 10), "c": (30, 30)}, {"a": (20, 30), "b": (9, 10), "c": (30, 30)}
    decision = decide(comparison(new, old), THRESHOLDS)
    assert not decision.deploy
    assert "class 'b' fell from 90.0 % to 50.0 % of 10 pictures" in decision.reason
    assert decide(comparison(new, old), GateThresholds(classes_that_matter=("a",))).deploy


def test_a_class_that_matters_must_be_known() -> None:
    decision = decide(comparison({"a": (49, 50), "b": (49, 50)}), GateThresholds(classes_that_matter=("c",)))
    assert not decision.deploy
    assert "'c', which matters" in decision.reason


def test_a_class_that_matters_must_have_pictures_to_compare() -> None:
    thresholds = GateThresholds(classes_that_matter=("b",))
    decision = decide(comparison({"a": (50, 50), "b": (0, 0)}, {"a": (40, 50), "b": (0, 0)}), thresholds)
    assert not decision.deploy
    assert "the class 'b', which matters, has no picture that can be compared" in decision.reason


def test_a_new_class_needs_only_a_draw_on_the_shared_pictures_and_is_named() -> None:
    new = {"a": (48, 50), "b": (49, 50), "c": (30, 40)}
    old = {"a": (48, 50), "b": (49, 50), "c": (0, 40)}
    decision = decide(comparison(new, old, champion_classes=["a", "b"]), THRESHOLDS)
    assert decision.deploy
    assert "97.0 % against 97.0 % on 100 pictures" in decision.reason
    assert "new class 'c' the champion does not know" in decision.reason


def test_a_new_class_does_not_excuse_a_loss_on_the_shared_pictures() -> None:
    new = {"a": (47, 50), "b": (49, 50), "c": (40, 40)}
    old = {"a": (48, 50), "b": (49, 50), "c": (0, 40)}
    assert not decide(comparison(new, old, champion_classes=["a", "b"]), THRESHOLDS).deploy


def test_a_removed_class_is_named() -> None:
    new, old = {"a": (49, 50), "b": (49, 50)}, {"a": (40, 50), "b": (40, 50)}
    decision = decide(comparison(new, old, champion_classes=["a", "b", "z"]), THRESHOLDS)
    assert decision.deploy
    assert "class 'z' no longer in the dataset" in decision.reason


def test_too_few_comparable_pictures_keep_the_champion_and_say_why() -> None:
    decision = decide(comparison({"a": (5, 5)}, {"a": (1, 5)}, excluded=350), THRESHOLDS)
    assert not decision.deploy
    assert "only 5 pictures can be compared (350 were left out because the champion was trained on them)" in (
        decision.reason
    )


def test_no_picture_at_all_is_a_reason_and_not_a_crash() -> None:
    decision = decide(comparison({}, {}), THRESHOLDS)
    assert not decision.deploy
    assert "only 0 pictures can be compared" in decision.reason


def test_an_evaluation_that_forgets_the_shared_pictures_is_refused() -> None:
    values = comparison({"a": (5, 5)}, {"a": (1, 5)}).model_dump(by_alias=True) | {"shared": None}
    with pytest.raises(ValidationError, match="both"):
        Comparison.model_validate(values)


counts = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(new=st.dictionaries(st.sampled_from("abcd"), counts), old_correct=st.integers(0, 60))
def test_a_deploy_never_answers_fewer_shared_pictures_than_the_champion(
    new: dict[str, tuple[int, int]], old_correct: int
) -> None:
    old = {name: (min(old_correct, n), n) for name, (_, n) in new.items()}
    found = comparison(new, old)
    decision = decide(found, THRESHOLDS)
    assert found.shared is not None
    if decision.deploy:
        assert found.shared.challenger_correct > found.shared.champion_correct
    assert decision.reason
