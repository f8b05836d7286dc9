"""One project: a model line, described by `include/projects/<name>.yaml`."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
)

from include.bake_limits import BakeLimits
from include.gate import GateThresholds, Share
from include.haproxy_config import Routed
from include.releases import ALL
from include.settings import DVC_BUCKET, MLFLOW_BUCKET, RECORDS_BUCKET
from include.sizes import in_bytes

PROJECTS_FOLDER = Path(__file__).parent / "projects"

# A name is part of container names, host names, bucket names and DAG ids; 40 leaves room for what is added.
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME_LENGTH = 40
RESERVED_NAMES = frozenset({"airlock"})
RESERVED_BUCKETS = frozenset({RECORDS_BUCKET, DVC_BUCKET, MLFLOW_BUCKET})
BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

# What Airlock gives Ultralytics itself, and the setting to use instead (None: not to be chosen).
OWN_TRAIN_ARGS: Mapping[str, str | None] = {
    "model": "model",
    "epochs": "epochs",
    "imgsz": "image_size",
    "batch": "batch",
    "lr0": "learning_rate",
    "seed": "seed",
    "device": "device",
    **dict.fromkeys(("cfg", "data", "deterministic", "exist_ok", "fraction", "mode", "name", "plots", "pretrained")),
    **dict.fromkeys(("project", "resume", "save", "save_dir", "save_period", "single_cls", "split", "task", "time")),
    **dict.fromkeys(("val", "verbose")),
}


def _free(name: str) -> str:
    """The name of an argument that a project may give Ultralytics."""
    if name in OWN_TRAIN_ARGS:
        instead = OWN_TRAIN_ARGS[name]
        raise ValueError("is set by Airlock" + (f"; use `{instead}`" if instead else ""))
    return name


Percent = Annotated[int, Field(ge=1, le=100)]
TrainArg = Annotated[str, AfterValidator(_free)]
Bytes = Annotated[int, BeforeValidator(in_bytes), Field(ge=64 * 2**20)]


class AlertRouting(BaseModel):
    """Names of channels in ALERT_CHANNELS that a project's alerts go to, by severity; null: all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: tuple[str, ...] | None = None
    warning: tuple[str, ...] | None = None


class Project(BaseModel):
    """A project's settings. Times carry their unit in the name; shares are of 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bucket: str = Field(description="where people put pictures, without the deployment's prefix")

    trainer: str = Field(
        default="default", pattern=r"^[a-z0-9][a-z0-9.-]*$", description="variant of the trainer image"
    )
    device: Literal["cuda", "cpu"] = "cuda"
    model: str = Field(default="yolo11n-cls.yaml", pattern=r"^([\w.-]+-cls\.yaml|s3:[^\s]+\.pt)$")
    image_size: int = Field(default=64, ge=32, le=2048, multiple_of=32, description="pixels")
    epochs: int = Field(default=10, ge=1, le=10_000)
    batch: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="null: Ultralytics' choice")
    seed: int = Field(default=0, ge=0)
    train_args: dict[TrainArg, JsonValue] = Field(default_factory=dict, description="further arguments of Ultralytics")

    val_share: float = Field(default=0.2, gt=0, lt=1)
    min_images_per_class: int = Field(default=10, ge=2)
    max_bad_share: Share = 0.05
    packs: bool = Field(default=False, description="whether small pictures are kept in packs, too")

    settle_seconds: int = Field(default=60, ge=1, description="how long the bucket must have been quiet")
    poll_seconds: int = Field(default=15, ge=1)
    retries: int = Field(default=2, ge=0)
    retry_delay_seconds: int = Field(default=60, ge=0)
    deadline_minutes: int = Field(default=240, ge=1, description="longest that one attempt of the training may take")
    mlflow_outage_minutes: int = Field(default=15, ge=0, description="how long training goes on without MLflow")
    memory_bytes: Bytes = Field(default=4 * 2**30, description="limit of a task container")
    api_memory_bytes: Bytes = Field(default=2**30, description="limit of an API container")
    replicas: int = Field(default=2, ge=1, le=8, description="API containers of a release")
    requests_per_minute: int = Field(default=6000, ge=1, le=10_000_000, description="that one API key may make")

    approval: Literal["none", "required"] = Field(default="none", description="whether a person approves each release")
    approvers: tuple[str, ...] = Field(default=(), description="Airflow's users who may; empty: whoever may act on it")
    approval_hours: int = Field(default=72, ge=1, le=24 * 90, description="after which a release is rejected")

    late_minutes: int = Field(default=480, ge=1, description="after which a run that goes on is late: an alert")
    queue_minutes: int = Field(default=240, ge=1, description="after which a run that waits for its turn is an alert")
    alerts: AlertRouting = Field(default_factory=AlertRouting)

    gate: GateThresholds = Field(default_factory=GateThresholds)
    golden_tolerance: float = Field(default=1e-4, gt=0, lt=1, description="largest difference of a golden probability")
    canary: tuple[Percent, ...] = Field(default=(), description="shares of the traffic before all of it, in percent")
    canary_minutes: int = Field(default=5, ge=1, le=1440, description="how long each share is watched")
    bake: BakeLimits = Field(default_factory=BakeLimits)

    @field_validator("bucket")
    @classmethod
    def _bucket_is_usable(cls, bucket: str) -> str:
        if BUCKET.fullmatch(bucket) is None:
            raise ValueError(f"{bucket!r} is not a bucket name: 3 to 63 of a-z, 0-9 and -")
        if bucket in RESERVED_BUCKETS:
            raise ValueError(f"{bucket!r} is Airlock's own bucket")
        return bucket

    @field_validator("canary")
    @classmethod
    def _canary_grows(cls, canary: tuple[int, ...]) -> tuple[int, ...]:
        if list(canary) != sorted(set(canary)):
            raise ValueError(f"{list(canary)} does not grow: write each share once, the smallest first")
        return canary

    @property
    def shares(self) -> tuple[int, ...]:
        """Shares of the traffic that a new release gets, one after the other; the last is all."""
        return (*(share for share in self.canary if share < ALL), ALL)

    @property
    def trial_seconds(self) -> int:
        """The longest time between two steps of a release."""
        return max(self.bake.seconds, self.canary_minutes * 60 if self.canary else 0)

    @field_validator("model")
    @classmethod
    def _weights_are_no_class(cls, model: str) -> str:
        if "/" in model:
            raise ValueError(f"{model!r} lies in a folder, which would be a class: put it at the bucket's top level")
        return model


@dataclass(frozen=True)
class Mistake:
    """One mistake in a project's file."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class ProjectError(Exception):
    """A project's file is wrong; the message lists every mistake with file and line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        super().__init__("\n".join(map(str, self.mistakes)))


@dataclass(frozen=True)
class Projects:
    """Every project of a folder: those that can be used, and why the others cannot."""

    usable: Mapping[str, Project]
    broken: Mapping[str, ProjectError]

    @property
    def names(self) -> frozenset[str]:
        """Every name that may be routed to: a mistake in a file takes nothing from service."""
        return frozenset(self.usable) | {name for name in self.broken if not name_problem(name)}

    def or_defaults(self, name: str) -> Project:
        """The project; with a broken file, one of defaults."""
        return self.usable.get(name) or Project(name=name, bucket=default_bucket(name))

    @property
    def routed(self) -> dict[str, Routed]:
        """What the front door needs of each project that may be routed to."""
        found = {name: self.or_defaults(name) for name in self.names}
        return {name: Routed(one.replicas, one.requests_per_minute) for name, one in found.items()}


def load_all(folder: Path = PROJECTS_FOLDER, environ: Mapping[str, str] = os.environ) -> Projects:
    """Read every `*.yaml` of a folder. Never raises for a broken file: it is listed in `broken`."""
    usable: dict[str, Project] = {}
    broken: dict[str, ProjectError] = {}
    for path in project_files(folder):
        try:
            usable[path.stem] = load(path, environ)
        except ProjectError as error:
            broken[path.stem] = error
    owner: dict[str, str] = {}
    # The project that a bucket is named after comes first: another's file must not take it away.
    for project in sorted(usable.values(), key=lambda one: one.bucket != default_bucket(one.name)):
        if project.bucket in owner:
            message = f"bucket: {project.bucket!r} is already the bucket of the project {owner[project.bucket]!r}"
            broken[project.name] = ProjectError([Mistake(folder / f"{project.name}.yaml", 1, message)])
            del usable[project.name]
        owner.setdefault(project.bucket, project.name)
    return Projects(usable, broken)


def project_files(folder: Path) -> list[Path]:
    """The projects' files, in order. Hidden ones are an editor's, such as the dangling link that Emacs locks with."""
    return sorted(path for path in folder.glob("*.yaml") if not path.name.startswith(".") and path.is_file())


def default_bucket(name: str) -> str:
    """The bucket of a project whose file names none."""
    return f"{name}-train"


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Project:
    """Read one project. Raises ProjectError with every mistake of the file."""
    source = _Source(path, environ)
    values = source.values()
    mistakes = list(source.mistakes)
    name = path.stem
    if problem := name_problem(name):
        mistakes.append(Mistake(path, 1, problem))
    if "name" in values:
        mistakes.append(source.mistake(("name",), "the file's name is the project's name; remove this line"))
    try:
        project = Project.model_validate({"bucket": default_bucket(name), **values, "name": name})
    except ValidationError as error:
        raise ProjectError([*mistakes, *source.explain(error)]) from None
    except (OverflowError, RecursionError) as error:
        raise ProjectError([*mistakes, Mistake(path, 1, f"a value is beyond all bounds: {error}")]) from None
    if mistakes:
        raise ProjectError(mistakes)
    return project


def name_problem(name: str) -> str | None:
    """Why a name cannot be a project's, or None."""
    if NAME.fullmatch(name) is None or len(name) > MAX_NAME_LENGTH:
        return (
            f"the file name gives the project's name, and {name!r} is none: a letter, then letters, digits and single "
            f"dashes, all lower case, at most {MAX_NAME_LENGTH} characters"
        )
    if name in RESERVED_NAMES:
        return f"the name {name!r} is Airlock's own"
    return None


class _Source:
    """A YAML file as nodes, so that a mistake can name its line."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.environ = environ
        self.mistakes: list[Mistake] = []
        self.root: yaml.Node | None = None

    def values(self) -> dict[str, Any]:
        """The file's content with `${NAME}` and `${NAME:-default}` filled in."""
        try:
            loader = yaml.SafeLoader(self.path.read_text(encoding="utf-8"))
            self.root = loader.get_single_node()
            if self.root is None:
                return {}
            if not isinstance(self.root, yaml.MappingNode):
                raise ProjectError([Mistake(self.path, 1, "a project's file holds settings as `key: value`")])
            self._fill_in(loader, self.root)
            return dict(loader.construct_document(self.root))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ProjectError([*self.mistakes, Mistake(self.path, line, f"not YAML: {error.problem}")]) from None
        except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
            # PyYAML lets out what Python says of a date that is none, or of a node that contains itself.
            raise ProjectError([Mistake(self.path, 1, f"cannot be read: {' '.join(str(error).split())}")]) from None

    def explain(self, error: ValidationError) -> Iterator[Mistake]:
        """Pydantic's findings as mistakes with their lines."""
        for finding in error.errors():
            # Pydantic calls the key of a mapping `[key]`.
            where = tuple(part for part in finding["loc"] if part != "[key]")
            key = ".".join(map(str, where))
            message = finding["msg"].removeprefix("Value error, ")
            if finding["type"] == "extra_forbidden":
                message = "there is no such setting" + _did_you_mean(where)
            yield self.mistake(where, f"{key}: {message}" if key else message)

    def mistake(self, where: tuple[int | str, ...], message: str) -> Mistake:
        """A mistake at a key."""
        return Mistake(self.path, self._line(where), message)

    def _fill_in(self, loader: yaml.SafeLoader, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if str(key.value) in seen:
                    first = seen[str(key.value)]
                    self.mistakes.append(Mistake(self.path, line, f"{key.value}: is already set in line {first}"))
                seen[str(key.value)] = line
                self._fill_in(loader, value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._fill_in(loader, item)
        elif isinstance(node, yaml.ScalarNode) and "${" in node.value:
            node.value = VARIABLE.sub(lambda match: self._variable(match, node), node.value)
            if node.style is None:  # a plain scalar: `${EPOCHS}` may be a number
                node.tag = loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]

    def _variable(self, match: re.Match[str], node: yaml.Node) -> str:
        value = self.environ.get(match[1]) or match[2]
        if value is None:
            message = f"the environment variable {match[1]} is not set; set it, or write ${{{match[1]}:-default}}"
            self.mistakes.append(Mistake(self.path, node.start_mark.line + 1, message))
            return match[0]
        return value

    def _line(self, where: tuple[int | str, ...]) -> int:
        """The line of a key; of the nearest one above it where the key itself is missing."""
        node, line = self.root, 1
        for part in where:
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if str(key.value) == str(part)), None)
                if pair is None:
                    return line
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line


def _did_you_mean(where: tuple[int | str, ...]) -> str:
    nested: dict[tuple[int | str, ...], type[BaseModel]] = {("gate",): GateThresholds, ("bake",): BakeLimits}
    known = nested.get(where[:-1], Project).model_fields
    close = difflib.get_close_matches(str(where[-1]), [name for name in known if name != "name"], n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
