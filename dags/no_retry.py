"""Errors that another attempt would meet again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from include.settings import SettingsError


@contextmanager
def no_retry(*kinds: type[Exception]) -> Iterator[None]:
    """End the task at once for errors that another attempt would meet again."""
    hopeless: tuple[type[Exception], ...] = (SettingsError, *kinds)
    try:
        yield
    except hopeless as error:
        raise AirflowFailException(str(error)) from error
