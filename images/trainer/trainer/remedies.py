"""What a person can do about a file that cannot be trained on."""

from __future__ import annotations

REMEDIES = {
    "cannot be decoded": "It is damaged: upload the original again, or delete it.",
    "an empty file": "Upload it again: nothing of it arrived.",
    "not a picture": "Move it out of the class folders, or delete it.",
    "the format ": "Save it as JPEG or PNG.",
    "OpenCV": "Save it anew as JPEG or PNG.",
    "save it with 8 bits": "Save it with 8 bits per channel, in RGB or grey, without transparency.",
    "the shorter side": "Put in a larger picture, or delete it.",
    " million": "Make it smaller.",
}
"""By words that a cause of `pictures` contains; the first that match count."""
OTHERWISE = "Open it and save it anew as JPEG or PNG, or delete it."


def remedy(cause: str) -> str:
    """What to do about a file with this cause."""
    return next((advice for words, advice in REMEDIES.items() if words in cause), OTHERWISE)
