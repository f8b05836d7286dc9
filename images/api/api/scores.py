"""The result of an evaluation, computed from what each model said of each picture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from api.split import Picture

MAX_FLIPS = 200  # the result travels through Airflow's database


class ClassScore(BaseModel):
    """Of one class: how many pictures, how many right."""

    n: int
    correct: int


class Score(BaseModel):
    """One model on all pictures."""

    run_id: str
    accuracy: float
    correct: int
    per_class: dict[str, ClassScore]
    classes: list[str]
    confusion: dict[str, dict[str, int]]


class Shared(BaseModel):
    """Both models on the pictures whose class both know."""

    n: int
    challenger_correct: int
    champion_correct: int


class Majority(BaseModel):
    """What always answering the most frequent class would score."""

    label: str = Field(serialization_alias="class")
    accuracy: float


class Flip(BaseModel):
    """A picture that one model has right and the other wrong."""

    relpath: str
    md5: str
    label: str
    champion: str
    challenger: str


class Evaluation(BaseModel):
    """The result of `evaluate`."""

    challenger: Score
    champion: Score | None
    n: int
    excluded: int
    majority: Majority
    shared: Shared | None
    won: int
    lost: int
    flips: list[Flip]


@dataclass(frozen=True)
class Answers:
    """What a model said of each picture, in the pictures' order."""

    run_id: str
    classes: Sequence[str]
    labels: Sequence[str]


def compare(pictures: Sequence[Picture], excluded: int, challenger: Answers, champion: Answers | None) -> Evaluation:
    """The evaluation of at least one picture; `excluded` pictures were left out before."""
    flips = _flips(pictures, challenger, champion) if champion else []
    won = sum(flip.challenger == flip.label for flip in flips)
    return Evaluation(
        challenger=_score(pictures, challenger),
        champion=_score(pictures, champion) if champion else None,
        n=len(pictures),
        excluded=excluded,
        majority=_majority(pictures),
        shared=_shared(pictures, challenger, champion) if champion else None,
        won=won,
        lost=len(flips) - won,
        flips=flips[:MAX_FLIPS],
    )


def _score(pictures: Sequence[Picture], answers: Answers) -> Score:
    """How a model did; a picture of a class that it does not know counts as wrong."""
    confusion: dict[str, Counter[str]] = {label: Counter() for label in sorted({p.label for p in pictures})}
    for picture, answer in zip(pictures, answers.labels, strict=True):
        confusion[picture.label][answer] += 1
    per_class = {label: ClassScore(n=row.total(), correct=row[label]) for label, row in confusion.items()}
    correct = sum(score.correct for score in per_class.values())
    return Score(
        run_id=answers.run_id,
        accuracy=correct / len(pictures),
        correct=correct,
        per_class=per_class,
        classes=list(answers.classes),
        confusion={label: dict(row) for label, row in confusion.items()},
    )


def _shared(pictures: Sequence[Picture], challenger: Answers, champion: Answers) -> Shared:
    known = {*challenger.classes} & {*champion.classes}
    rows = [row for row in zip(pictures, challenger.labels, champion.labels, strict=True) if row[0].label in known]
    return Shared(
        n=len(rows),
        challenger_correct=sum(picture.label == answer for picture, answer, _ in rows),
        champion_correct=sum(picture.label == answer for picture, _, answer in rows),
    )


def _flips(pictures: Sequence[Picture], challenger: Answers, champion: Answers) -> list[Flip]:
    """Among the shared pictures; those that the challenger lost come first, being what a person looks at first."""
    known = {*challenger.classes} & {*champion.classes}
    flips = [
        Flip(relpath=p.relpath, md5=p.md5, label=p.label, champion=old, challenger=new)
        for p, new, old in zip(pictures, challenger.labels, champion.labels, strict=True)
        if p.label in known and (new == p.label) != (old == p.label)
    ]
    return sorted(flips, key=lambda flip: (flip.challenger == flip.label, flip.relpath))


def _majority(pictures: Sequence[Picture]) -> Majority:
    counts = Counter(picture.label for picture in pictures)
    label = min(counts, key=lambda each: (-counts[each], each))
    return Majority(label=label, accuracy=counts[label] / len(pictures))
