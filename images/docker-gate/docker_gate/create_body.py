"""The body of `POST /containers/create`: what a container of Airlock may be, and nothing else.

The model is the filter: a key that it does not name is refused, and what it writes is what Docker is sent.
Keys have Docker's exact letter case. Where docker-py always sends a null or an empty value, that value is
accepted and left out of what is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_pascal

from docker_gate.refusal import Refused

USER = "10001:10001"
CACHE, WEIGHTS, RESULTS = ("airlock-cache", "/cache"), ("airlock-weights", "/weights"), (None, "/results")
MOUNTS: dict[str, set[tuple[str | None, str]]] = {"task": {CACHE, RESULTS}, "api": {WEIGHTS}}

# Not Literal[True], which takes 1 for true.
On = Annotated[bool, AfterValidator(lambda value: _must_be(True, value))]
Off = Annotated[bool, AfterValidator(lambda value: _must_be(False, value))]
# More than any machine that this runs on has: what is larger is no limit.
MAX_MEMORY_BYTES = 2**42
MAX_CORES = 1024
MAX_PIDS = 65536
MAX_LOG_BYTES = 2**30
Memory = Annotated[int, Field(gt=0, le=MAX_MEMORY_BYTES)]
Text = Annotated[str, StringConstraints(max_length=65536, pattern=r"^[^\x00]*$")]
Variable = Annotated[
    str,
    StringConstraints(max_length=262144, pattern=r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$"),
    AfterValidator(lambda variable: _of_the_program(variable)),
]
Label = Annotated[str, StringConstraints(max_length=64, pattern=r"^airlock\.[a-z_]+$")]
TmpOptions = Annotated[
    str, StringConstraints(pattern=r"^((rw|noexec|exec|nosuid|nodev|mode=[0-7]{3,4}|uid=\d+|gid=\d+),)*size=\d+[kmg]?$")
]
PROJECT = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")


def _must_be(wanted: bool, value: bool) -> bool:
    if value is not wanted:
        raise ValueError(f"must be {str(wanted).lower()}")
    return value


def _of_the_program(variable: str) -> str:
    # The loader runs what LD_PRELOAD names; NVIDIA's runtime, where it is Docker's default, gives GPUs to whoever
    # sets NVIDIA_VISIBLE_DEVICES. With a device request Docker sets what is needed itself.
    if variable.startswith(("LD_", "NVIDIA_")):
        raise ValueError("a variable whose name begins with LD_ or NVIDIA_ speaks to the loader or the runtime")
    return variable


class Part(BaseModel):
    """A part of the body: exact keys, exact types, no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_pascal)


class MountPart(Part):
    """A named volume of the contract, or the anonymous one at `/results`."""

    type: Literal["volume"]
    source: str | None = None
    target: str
    read_only: bool = False


class LogOptions(Part):
    """Rotation: without it one talkative container fills the disk."""

    max_size: Annotated[str, StringConstraints(pattern=r"^\d{1,4}[km]$")] = Field(alias="max-size")
    max_file: Annotated[str, StringConstraints(pattern=r"^[1-9]\d?$")] = Field(alias="max-file")

    @model_validator(mode="after")
    def _all_files_together_have_an_end(self) -> Self:
        unit = {"k": 2**10, "m": 2**20}[self.max_size[-1]]
        if not 0 < int(self.max_size[:-1]) * unit * int(self.max_file) <= MAX_LOG_BYTES:
            raise ValueError(f"max-size times max-file must be 1 to {MAX_LOG_BYTES} bytes")
        return self


class LogConfig(Part):
    """Docker's own log files, which `GET …/logs` reads."""

    type: Literal["json-file"]
    config: LogOptions


class RestartPolicy(Part):
    """A task is never started again by Docker; a serving container is, after a reboot too."""

    name: Literal["no", "unless-stopped"]
    maximum_retry_count: Annotated[int, Field(ge=0, le=0)] = 0


class DeviceRequest(Part):
    """GPUs, as `--gpus all` asks for them."""

    driver: Literal["", "nvidia"] = ""
    count: Annotated[int, Field(ge=-1, le=64)]
    device_ids: tuple[()] = Field(default=(), alias="DeviceIDs", strict=False)
    capabilities: list[list[Literal["gpu"]]] = Field(min_length=1, max_length=1)
    options: dict[str, str] = Field(default={}, max_length=0)


class HostConfig(Part):
    """What the host lends to the container."""

    memory: Memory
    memory_swap: Memory | None = None
    nano_cpus: Annotated[int, Field(gt=0, le=MAX_CORES * 10**9)] | None = None
    pids_limit: Annotated[int, Field(gt=0, le=MAX_PIDS)]
    shm_size: Memory | None = None
    network_mode: str
    cap_drop: list[Literal["ALL"]] = Field(min_length=1, max_length=1)
    security_opt: list[Literal["no-new-privileges", "no-new-privileges:true"]] = Field(min_length=1, max_length=1)
    readonly_rootfs: On
    init: On
    tmpfs: dict[Literal["/tmp"], TmpOptions] | None = None  # noqa: S108 - a path in the container
    mounts: list[MountPart] = []
    device_requests: list[DeviceRequest] = Field(default=[], max_length=1)
    log_config: LogConfig
    restart_policy: RestartPolicy | None = None

    @model_validator(mode="after")
    def _swap_is_no_second_memory(self) -> Self:
        if self.memory_swap not in (None, self.memory):
            raise ValueError("MemorySwap must equal Memory, which means no swap")
        return self


class Endpoints(Part):
    """Which network docker-py joins the container to; it names it here a second time."""

    endpoints_config: dict[str, Annotated[dict[str, str], Field(max_length=0)] | None]


class CreateBody(Part):
    """A task's or an API's container."""

    image: Text
    cmd: list[Text] | None = None
    env: list[Variable] | None = None
    labels: dict[Label, Text]
    user: Literal["10001", "10001:10001"] | None = None
    stop_timeout: Annotated[int, Field(gt=0, le=600)] | None = None
    host_config: HostConfig
    networking_config: Endpoints | None = None

    # docker-py always sends these; nothing but its defaults is accepted.
    hostname: Literal[""] | None = None
    domainname: Literal[""] | None = None
    exposed_ports: Annotated[dict[str, str], Field(max_length=0)] | None = None
    tty: Off = False
    open_stdin: Off = False
    stdin_once: Off = False
    attach_stdin: Off = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    volumes: Annotated[dict[str, str], Field(max_length=0)] | None = None
    network_disabled: Off = False
    entrypoint: None = None
    working_dir: None = None
    mac_address: None = None
    stop_signal: None = None
    healthcheck: None = None
    runtime: None = None

    @model_validator(mode="after")
    def _labels_say_whose_it_is(self) -> Self:
        if self.labels.get("airlock.managed") != "true":
            raise ValueError("the label airlock.managed=true is missing")
        if self.role not in MOUNTS:
            raise ValueError("the label airlock.role must be task or api")
        if not PROJECT.fullmatch(self.project):
            raise ValueError("the label airlock.project is not the name of a project")
        return self

    @model_validator(mode="after")
    def _role_limits_what_it_gets(self) -> Self:
        host, role = self.host_config, self.role
        asked = [(mount.source or None, mount.target) for mount in host.mounts]
        for mount in asked:
            if mount not in MOUNTS.get(role, set()):
                raise ValueError(f"a container with the role {role!r} may not mount {mount[0]!r} at {mount[1]!r}")
        if len(set(asked)) != len(asked):
            raise ValueError("a mount is there twice")
        if role != "api" and host.restart_policy and host.restart_policy.name != "no":
            raise ValueError("only a container with the role 'api' may be restarted by Docker")
        return self

    @property
    def role(self) -> str:
        """`task` or `api`."""
        return self.labels.get("airlock.role", "")

    @property
    def project(self) -> str:
        """The project that the container works for."""
        return self.labels.get("airlock.project", "")

    def check_network(self, network: str) -> None:
        """Refuse any network but `network`."""
        named = {self.host_config.network_mode}
        if self.networking_config:
            named |= set(self.networking_config.endpoints_config)
        if named != {network}:
            raise Refused(f"HostConfig.NetworkMode must be {network!r}")

    def check_name(self, name: str | None) -> None:
        """Refuse a container name that is not the role's: on the network, a name is a DNS entry."""
        pattern = (
            rf"airlock-{self.project}-[a-z0-9_.-]+-[0-9a-f]{{10}}"
            if self.role == "task"
            else rf"{self.project}-(blue|green)-\d{{1,6}}"
        )
        if name is None or not re.fullmatch(pattern, name):
            raise Refused(f"the name {name!r} is not one of a container with the role {self.role!r}: want {pattern}")

    def write(self, image_id: str) -> dict[str, Any]:
        """What Docker is sent: this model, the image by its id, and always our user."""
        written: dict[str, Any] = self.model_dump(by_alias=True, exclude_defaults=True, exclude={"networking_config"})
        # Always: where it is not said, Docker adds as much swap as there is memory.
        limits = {**written["HostConfig"], "MemorySwap": self.host_config.memory}
        return {**written, "HostConfig": limits, "Image": image_id, "User": USER}


def read_create_body(document: Mapping[str, Any]) -> CreateBody:
    """The container that `document` asks for. Raises Refused with every reason; no value of the body is shown."""
    try:
        return CreateBody.model_validate(document)
    except ValidationError as error:
        # Only places and rules: the environment in the body holds secrets.
        reasons = [
            f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}"
            for e in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise Refused("the container asked for is not allowed: " + "; ".join(reasons[:20])) from None
