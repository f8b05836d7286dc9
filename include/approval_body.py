"""What a person sees who is to approve a release: figures by class, what is taken for what, pictures that changed."""

from __future__ import annotations

from collections.abc import Iterator

from include.gate import Comparison, Flip, ModelScore

# A larger matrix is no help; the commonest mistakes are.
MATRIX_CLASSES = 12
MISTAKES = 15
PICTURES = 20


def approval_body(comparison: Comparison, reason: str) -> str:
    """The comparison as Markdown. Names of classes and files are a stranger's words, and shown as code."""
    sections = [reason, _by_class(comparison), _confusion(comparison.challenger), *_flips(comparison)]
    return "\n\n".join(section for section in sections if section)


def _by_class(comparison: Comparison) -> str:
    rows = []
    for name, score in comparison.challenger.per_class.items():
        old = comparison.champion.per_class.get(name) if comparison.champion is not None else None
        known = comparison.champion is not None and name in comparison.champion.classes
        rows.append([_code(name), str(score.n), str(score.correct), str(old.correct) if old and known else "–"])
    return "**Right answers**\n\n" + _table(["class", "pictures", "new model", "serves now"], rows)


def _confusion(score: ModelScore) -> str:
    if not score.confusion:
        return ""
    if len(score.confusion) <= MATRIX_CLASSES:
        answers = sorted({answer for row in score.confusion.values() for answer in row})
        rows = [[_code(name), *(str(row.get(a, "")) for a in answers)] for name, row in score.confusion.items()]
        return "**What the new model answers**, by class\n\n" + _table(["class", *map(_code, answers)], rows)
    mistakes = [(count, name, answer) for name, row in score.confusion.items() for answer, count in row.items()]
    worst = sorted((mistake for mistake in mistakes if mistake[1] != mistake[2]), reverse=True)[:MISTAKES]
    rows = [[_code(name), _code(answer), str(count)] for count, name, answer in worst]
    return "**Commonest mistakes of the new model**\n\n" + _table(["class", "taken for", "pictures"], rows)


def _flips(comparison: Comparison) -> Iterator[str]:
    lost = [flip for flip in comparison.flips if flip.challenger != flip.label]
    won = [flip for flip in comparison.flips if flip.challenger == flip.label]
    for words, flips, count in (("lost", lost, comparison.lost), ("won", won, comparison.won)):
        if flips:
            yield f"**Pictures {words}: {count}**\n\n" + "\n".join(_flip(flip) for flip in flips[:PICTURES])


def _flip(flip: Flip) -> str:
    return f"- {_code(flip.relpath)}: was {_code(flip.champion)}, now {_code(flip.challenger)}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    plain = "".join(" " if character in "`\r\n" else character for character in text)
    return "`" + plain.replace("|", "\\|") + "`"
