"""Whether a challenger may replace the champion: a pure decision with its reason in words."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]

# Shares times counts are compared as whole pictures; this much is rounding, not a picture.
ROUNDING = 1e-9


class GateThresholds(BaseModel):
    """A project's conditions for a deploy. Shares are of 1 (0.05 is five points of accuracy)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    margin_over_majority: Share = Field(
        default=0.1, description="accuracy above that of always answering the commonest class"
    )
    min_gain: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="accuracy to gain over the champion; 0: any gain; negative: a loss that is borne",
    )
    max_class_loss: Share = Field(
        default=0.1, description="share of one class's pictures that may be lost to the champion"
    )
    classes_that_matter: tuple[str, ...] = Field(
        default=(), description="classes max_class_loss guards; empty: every class"
    )
    min_pictures: int = Field(default=20, ge=1, description="fewest pictures that a comparison may rest on")


class ClassScore(BaseModel):
    """One class's pictures: how many, and how many were answered right."""

    model_config = ConfigDict(frozen=True)

    n: int
    correct: int


class ModelScore(BaseModel):
    """One model's answers on the pictures compared."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    accuracy: float
    correct: int
    per_class: dict[str, ClassScore]
    classes: tuple[str, ...]
    confusion: dict[str, dict[str, int]] = Field(default={}, description="by class: each answer, and how often")


class Majority(BaseModel):
    """What always answering the commonest class would score."""

    model_config = ConfigDict(frozen=True)

    class_name: str = Field(alias="class")
    accuracy: float


class Shared(BaseModel):
    """The pictures whose label both models know."""

    model_config = ConfigDict(frozen=True)

    n: int
    challenger_correct: int
    champion_correct: int


class Flip(BaseModel):
    """One picture that the two models answer differently."""

    model_config = ConfigDict(frozen=True)

    relpath: str
    md5: str
    label: str
    champion: str
    challenger: str


class Comparison(BaseModel):
    """The result of `evaluate`; see docs/contracts.md."""

    model_config = ConfigDict(frozen=True)

    challenger: ModelScore
    champion: ModelScore | None
    n: int
    excluded: int
    majority: Majority | None
    shared: Shared | None
    won: int
    lost: int
    flips: tuple[Flip, ...]

    @model_validator(mode="after")
    def _champion_has_shared(self) -> Self:
        if (self.champion is None) != (self.shared is None):
            raise ValueError("`champion` and `shared` must both be there or both be null")
        if self.majority is None and self.n > 0:
            raise ValueError(f"`majority` is null though {self.n} pictures were compared")
        return self


class Decision(BaseModel):
    """Deploy or not, and why."""

    model_config = ConfigDict(frozen=True)

    deploy: bool
    reason: str


def decide(comparison: Comparison, thresholds: GateThresholds) -> Decision:
    """Decide from figures alone: no I/O, the same answer every time."""
    objections = [
        *_too_few_pictures(comparison, thresholds),
        *_missing_classes_that_matter(comparison, thresholds),
    ]
    if not objections:
        objections = [*_majority(comparison, thresholds), *_champion(comparison, thresholds)]
    words = [_figures(comparison), *objections, *_class_changes(comparison)]
    return Decision(deploy=not objections, reason=f"{_verdict(comparison, not objections)}: {'; '.join(words)}")


def held_back(decision: Decision, why: str) -> Decision:
    """A decision for a deploy, of a run that is not to deploy."""
    return Decision(deploy=False, reason=f"not deployed, {why}: {decision.reason.partition(': ')[2]}")


def _verdict(comparison: Comparison, deploy: bool) -> str:
    if comparison.champion is None:
        return "deploy, the first model" if deploy else "nothing deployed"
    return "deploy" if deploy else "kept champion"


def _figures(comparison: Comparison) -> str:
    shared = comparison.shared
    if shared is None:
        return f"{_percent(comparison.challenger.correct, comparison.n)} on {_pictures(comparison.n)}"
    return (
        f"{_percent(shared.challenger_correct, shared.n)} against {_percent(shared.champion_correct, shared.n)}"
        f" on {_pictures(shared.n)} ({comparison.won} won, {comparison.lost} lost)"
    )


def _too_few_pictures(comparison: Comparison, thresholds: GateThresholds) -> Iterator[str]:
    comparable = comparison.shared.n if comparison.shared else comparison.n
    if comparable < thresholds.min_pictures:
        left_out = (
            f" ({comparison.excluded} were left out because the champion was trained on them)"
            if comparison.excluded
            else ""
        )
        yield (
            f"only {_pictures(comparable)} can be compared{left_out}, at least {thresholds.min_pictures} are needed: "
            "add pictures, or lower gate.min_pictures"
        )


def _missing_classes_that_matter(comparison: Comparison, thresholds: GateThresholds) -> Iterator[str]:
    for name in thresholds.classes_that_matter:
        if name not in comparison.challenger.classes:
            yield f"the class {name!r}, which matters, is not among the challenger's classes"
        elif _both_know(comparison, name) and not _pictures_of(comparison, name):
            yield f"the class {name!r}, which matters, has no picture that can be compared: add pictures of it"


def _both_know(comparison: Comparison, name: str) -> bool:
    return comparison.champion is not None and name in comparison.champion.classes


def _pictures_of(comparison: Comparison, name: str) -> int:
    score = comparison.challenger.per_class.get(name)
    return score.n if score else 0


def _majority(comparison: Comparison, thresholds: GateThresholds) -> Iterator[str]:
    majority = comparison.majority
    if majority is None:
        return
    needed = min(majority.accuracy + thresholds.margin_over_majority, 1.0)
    if comparison.challenger.accuracy < needed - ROUNDING:
        yield (
            f"{comparison.challenger.accuracy:.1%} on all {_pictures(comparison.n)} is not "
            f"{thresholds.margin_over_majority * 100:.1f} points over always answering {majority.class_name!r} "
            f"({majority.accuracy:.1%})"
        ).replace("%", " %")


def _champion(comparison: Comparison, thresholds: GateThresholds) -> Iterator[str]:
    shared = comparison.shared
    if shared is None:
        return
    gain = shared.challenger_correct - shared.champion_correct
    needed = _needed_gain(comparison, thresholds, shared.n)
    if gain < needed:
        yield f"{_change(gain)}, {_condition(needed)}"
    yield from _class_losses(comparison, thresholds)


def _needed_gain(comparison: Comparison, thresholds: GateThresholds, n: int) -> int:
    """Pictures to gain. A challenger that knows new classes brings that already: a draw is enough where any gain is."""
    needed = ceil(thresholds.min_gain * n - ROUNDING)
    if thresholds.min_gain == 0 and not _new_classes(comparison):
        return 1
    return needed


def _class_losses(comparison: Comparison, thresholds: GateThresholds) -> Iterator[str]:
    champion = comparison.champion
    if champion is None:
        return
    for name, new in sorted(comparison.challenger.per_class.items()):
        if thresholds.classes_that_matter and name not in thresholds.classes_that_matter:
            continue
        old = champion.per_class.get(name)
        if old is None or name not in champion.classes or new.n == 0:
            continue
        if (old.correct - new.correct) / new.n > thresholds.max_class_loss + ROUNDING:
            yield (
                f"class {name!r} fell from {_percent(old.correct, old.n)} to {_percent(new.correct, new.n)} "
                f"of {_pictures(new.n)}"
            )


def _class_changes(comparison: Comparison) -> Iterator[str]:
    if comparison.champion is None or comparison.shared is None:
        return
    if new := _new_classes(comparison):
        yield (
            f"new {_classes(new)} the champion does not know: compared on the pictures of classes that both know, "
            f"and with the majority class on all {comparison.n}"
        )
    if removed := [name for name in comparison.champion.classes if name not in comparison.challenger.classes]:
        yield f"{_classes(removed)} no longer in the dataset: the challenger will never answer with it"


def _new_classes(comparison: Comparison) -> list[str]:
    if comparison.champion is None:
        return []
    return [name for name in comparison.challenger.classes if name not in comparison.champion.classes]


def _classes(names: list[str]) -> str:
    return ("class " if len(names) == 1 else "classes ") + ", ".join(repr(name) for name in names)


def _percent(correct: int, n: int) -> str:
    return f"{100 * correct / n:.1f} %" if n else "nothing"


def _pictures(n: int) -> str:
    return "1 picture" if n == 1 else f"{n} pictures"


def _change(gain: int) -> str:
    return f"lost {_pictures(-gain)}" if gain < 0 else f"gained {_pictures(gain)}"


def _condition(needed: int) -> str:
    return f"at least {needed} must be gained" if needed > 0 else f"at most {-needed} may be lost"
