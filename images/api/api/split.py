"""`split.json`: which pictures a run was trained and validated on."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from api.errors import DataError
from api.identity import Md5


class Picture(BaseModel):
    """A validation picture and its class."""

    model_config = ConfigDict(frozen=True)

    md5: Md5
    relpath: str
    label: str


class Split(BaseModel):
    """Both halves of a run's dataset."""

    model_config = ConfigDict(frozen=True)

    train: frozenset[Md5]
    val: tuple[Picture, ...]


def read_split(path: Path, run_id: str) -> Split:
    """The split in the file; DataError when it is another document."""
    try:
        return Split.model_validate_json(path.read_bytes())
    except ValidationError as cause:
        raise DataError(
            f"The split.json of run {run_id} ({path}) is not one: {cause.error_count()} problems, the first "
            f"{cause.errors()[0]['msg']} at {cause.errors()[0]['loc']}. Train again."
        ) from None
