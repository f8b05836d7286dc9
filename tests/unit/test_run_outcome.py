"""The one line that a run's note has of its outcome."""

from __future__ import annotations

from include.run_outcome import LONGEST_NOTE, sentence, with_outcome


def test_the_outcome_follows_what_a_person_wrote_and_takes_the_place_of_a_former_one() -> None:
    first = with_outcome("why is it slow?\nask Ann", "train failed: no memory")
    assert first == "why is it slow?\nask Ann\nOutcome: train failed: no memory"
    assert with_outcome(first, "kept champion") == "why is it slow?\nask Ann\nOutcome: kept champion"
    assert with_outcome(None, "kept\nchampion") == "Outcome: kept champion"


def test_a_long_outcome_is_cut_to_what_airflow_keeps() -> None:
    note = with_outcome("x" * 300, "y" * 2000)
    assert len(note) <= LONGEST_NOTE
    assert note.startswith("x" * 300 + "\nOutcome: yyy")


def test_of_an_error_its_first_line_is_told() -> None:
    assert sentence(ValueError("bucket 'x' has one class\nTraceback …")) == "bucket 'x' has one class"
    assert sentence(KeyError()) == "KeyError"
