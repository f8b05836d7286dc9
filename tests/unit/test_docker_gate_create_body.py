"""The gate's model of a create body, against what docker-py really sends."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import docker
import pytest
from docker.types import Mount
from docker_gate.create_body import CreateBody, read_create_body
from docker_gate.refusal import Refused
from docker_gate.strict_json import read_object

from include import containers
from include.containers import TaskContainer, TaskInstance

CLIENT = docker.APIClient(base_url="http://127.0.0.1:1", version="1.41")
INSTANCE = TaskInstance("digits__retrain", "manual__2026-11-23T17:14:09+00:00", "train", -1, 1)


class Recorder(docker.APIClient):  # type: ignore[misc]
    """docker-py itself, but for the last step: it keeps the body that it would send."""

    sent: dict[str, Any]

    def create_container_from_config(self, config: Any, name: str | None = None, platform: str | None = None) -> Any:
        self.sent = json.loads(json.dumps(config))
        return {"Id": "0" * 64}


def task_body(*, gpu: bool = False) -> dict[str, Any]:
    recorder = Recorder(base_url="http://127.0.0.1:1", version="1.41")
    spec = TaskContainer(
        instance=INSTANCE,
        project="digits",
        image="sha256:" + "a" * 64,
        command=("train",),
        network="airlock",
        memory_bytes=1 << 30,
        gpu=gpu,
        secrets={"AWS_SECRET_ACCESS_KEY": "canary"},
    )
    containers._create(recorder, spec)
    return recorder.sent


def api_body() -> dict[str, Any]:
    config: dict[str, Any] = CLIENT.create_container_config(
        image="sha256:" + "b" * 64,
        command=["serve"],
        environment={"PROJECT": "digits"},
        labels={"airlock.managed": "true", "airlock.project": "digits", "airlock.role": "api"},
        host_config=containers.host_config(
            CLIENT,
            network="airlock",
            memory_bytes=1 << 30,
            pids_limit=256,
            shm_bytes=1 << 26,
            mounts=[Mount("/weights", "airlock-weights")],
            restart=True,
        ),
    )
    read: dict[str, Any] = json.loads(json.dumps(config))
    return read


def read(body: dict[str, Any]) -> CreateBody:
    return read_create_body(read_object(json.dumps(body).encode()))


def test_what_docker_py_sends_for_a_task_is_let_through() -> None:
    written = read(task_body(gpu=True)).write("sha256:" + "a" * 64)
    assert written["HostConfig"]["DeviceRequests"] == [{"Count": -1, "Capabilities": [["gpu"]]}]
    assert written["HostConfig"]["CapDrop"] == ["ALL"]
    assert written["HostConfig"]["ReadonlyRootfs"] is True
    assert {"Type": "volume", "Source": "airlock-cache", "Target": "/cache"} in written["HostConfig"]["Mounts"]
    assert written["User"] == "10001:10001"
    assert written["Labels"]["airlock.task_id"] == "train"


def test_what_docker_py_sends_for_an_api_is_let_through() -> None:
    written = read(api_body()).write("sha256:" + "b" * 64)
    assert written["HostConfig"]["RestartPolicy"] == {"Name": "unless-stopped"}
    assert written["HostConfig"]["Mounts"] == [{"Type": "volume", "Source": "airlock-weights", "Target": "/weights"}]


def test_nothing_that_the_model_does_not_name_is_written() -> None:
    assert set(read(api_body()).write("sha256:b")) <= {
        "Image",
        "Cmd",
        "Env",
        "Labels",
        "User",
        "HostConfig",
        "AttachStdout",
        "AttachStderr",
    }


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(body: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            body = body[parent]
        body[last] = value

    return apply


FORBIDDEN = {
    "privileged": change("HostConfig/Privileged", True),
    "privileged, even if false": change("HostConfig/Privileged", False),
    "privileged in lower case": change("HostConfig/privileged", True),
    "a second HostConfig in lower case": change("hostconfig", {"Privileged": True}),
    "a second HostConfig with a long s": change("Ho\u017ftConfig", {"Privileged": True}),
    "an unknown key": change("Surprise", 1),
    "an unknown key of the host": change("HostConfig/Surprise", 1),
    "the host's network": change("HostConfig/NetworkMode", "host"),
    "another container's network": change("HostConfig/NetworkMode", "container:postgres"),
    "the control network": change("HostConfig/NetworkMode", "control"),
    "a second network": change("NetworkingConfig", {"EndpointsConfig": {"control": {}}}),
    "a fixed address": change("NetworkingConfig", {"EndpointsConfig": {"airlock": {"IPAMConfig": {}}}}),
    "the host's processes": change("HostConfig/PidMode", "host"),
    "the host's memory": change("HostConfig/IpcMode", "host"),
    "the host's name": change("HostConfig/UTSMode", "host"),
    "the host's users": change("HostConfig/UsernsMode", "host"),
    "the host's cgroups": change("HostConfig/CgroupnsMode", "host"),
    "an added capability": change("HostConfig/CapAdd", ["SYS_ADMIN"]),
    "fewer capabilities dropped": change("HostConfig/CapDrop", ["NET_RAW"]),
    "no capabilities dropped": change("HostConfig/CapDrop", []),
    "a device": change("HostConfig/Devices", [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]),
    "rules for devices": change("HostConfig/DeviceCgroupRules", ["a *:* rwm"]),
    "a device request that is no GPU": change(
        "HostConfig/DeviceRequests", [{"Driver": "cdi", "Count": -1, "Capabilities": [["gpu"]]}]
    ),
    "a GPU with more capabilities": change(
        "HostConfig/DeviceRequests", [{"Driver": "", "Count": -1, "Capabilities": [["gpu", "compute"]]}]
    ),
    "a bind": change("HostConfig/Binds", ["/:/host"]),
    "a bind as a mount": change("HostConfig/Mounts", [{"Type": "bind", "Source": "/", "Target": "/cache"}]),
    "a named volume elsewhere": change(
        "HostConfig/Mounts", [{"Type": "volume", "Source": "airlock-cache", "Target": "/etc"}]
    ),
    "another volume": change(
        "HostConfig/Mounts", [{"Type": "volume", "Source": "airlock-postgres", "Target": "/cache"}]
    ),
    "a path as a volume": change("HostConfig/Mounts", [{"Type": "volume", "Source": "/", "Target": "/results"}]),
    "a volume of another role": change(
        "HostConfig/Mounts", [{"Type": "volume", "Source": "airlock-weights", "Target": "/weights"}]
    ),
    "a volume driver that binds": change(
        "HostConfig/Mounts",
        [
            {
                "Type": "volume",
                "Source": "airlock-cache",
                "Target": "/cache",
                "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"o": "bind", "device": "/"}}},
            }
        ],
    ),
    "a mount twice": change("HostConfig/Mounts", [{"Type": "volume", "Source": None, "Target": "/results"}] * 2),
    "volumes of another container": change("HostConfig/VolumesFrom", ["postgres"]),
    "volumes beside the mounts": change("Volumes", {"/x": {}}),
    "no seccomp": change("HostConfig/SecurityOpt", ["no-new-privileges", "seccomp=unconfined"]),
    "no security options": change("HostConfig/SecurityOpt", []),
    "new privileges": change("HostConfig/SecurityOpt", ["no-new-privileges:false"]),
    "a root that can be written": change("HostConfig/ReadonlyRootfs", False),
    "no init": change("HostConfig/Init", False),
    "a number for a boolean": change("HostConfig/Init", 1),
    "no limit of processes": change("HostConfig/PidsLimit", -1),
    "no limit of memory": change("HostConfig/Memory", 0),
    "swap without end": change("HostConfig/MemorySwap", -1),
    "more memory than any machine has": change("HostConfig/Memory", 2**62),
    "swap as large as the memory": change("HostConfig/MemorySwap", 2 << 30),
    "more shared memory than any machine has": change("HostConfig/ShmSize", 2**62),
    "more cores than any machine has": change("HostConfig/NanoCpus", 2**62),
    "more processes than Linux has numbers for": change("HostConfig/PidsLimit", 65537),
    "logs without an end": change("HostConfig/LogConfig/Config", {"max-size": "9999m", "max-file": "99"}),
    "logs of no size": change("HostConfig/LogConfig/Config", {"max-size": "0m", "max-file": "3"}),
    "no log file": change("HostConfig/LogConfig/Config", {"max-size": "10m", "max-file": "0"}),
    "a library loaded before the program": change("Env", ["LD_PRELOAD=/tmp/x.so"]),
    "an emptied list of libraries": change("Env", ["LD_PRELOAD="]),
    "GPUs by the environment": change("Env", ["NVIDIA_VISIBLE_DEVICES=all"]),
    "no killing at the limit": change("HostConfig/OomKillDisable", True),
    "no rotation of logs": change("HostConfig/LogConfig", {"Type": "json-file", "Config": {}}),
    "logs sent elsewhere": change("HostConfig/LogConfig", {"Type": "syslog", "Config": {"syslog-address": "udp://x"}}),
    "a task that Docker restarts": change("HostConfig/RestartPolicy", {"Name": "unless-stopped"}),
    "restart always": change("HostConfig/RestartPolicy", {"Name": "always"}),
    "a tmpfs elsewhere": change("HostConfig/Tmpfs", {"/etc": "size=1m"}),
    "a tmpfs without a size": change("HostConfig/Tmpfs", {"/tmp": "rw"}),
    "published ports": change("HostConfig/PortBindings", {"8000/tcp": [{"HostPort": "80"}]}),
    "all ports published": change("HostConfig/PublishAllPorts", True),
    "exposed ports": change("ExposedPorts", {"8000/tcp": {}}),
    "kernel settings": change("HostConfig/Sysctls", {"net.ipv4.ip_forward": "1"}),
    "another runtime": change("HostConfig/Runtime", "nvidia"),
    "a parent cgroup": change("HostConfig/CgroupParent", "/"),
    "root": change("User", "0"),
    "another entrypoint": change("Entrypoint", ["/bin/sh"]),
    "a hostname": change("Hostname", "s3"),
    "names for the resolver": change("HostConfig/ExtraHosts", ["s3:10.0.0.1"]),
    "a terminal": change("Tty", True),
    "an open stdin": change("OpenStdin", True),
    "no label of ours": change("Labels", {"airlock.project": "digits", "airlock.role": "task"}),
    "a foreign label": change("Labels/com.docker.compose.project", "airlock"),
    "another role": change("Labels/airlock.role", "control"),
    "no project": change("Labels/airlock.project", ""),
    "an environment variable without a value": change("Env", ["PATH"]),
    "a wrong type": change("HostConfig/Memory", "1g"),
    "a number too large": change("HostConfig/Memory", 2**63),
}


@pytest.mark.parametrize("forbid", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_a_body_is_refused_with(forbid: Callable[[dict[str, Any]], None]) -> None:
    body = copy.deepcopy(task_body())
    forbid(body)
    with pytest.raises(Refused):
        read(body).check_network("airlock")


def test_an_api_container_may_predict_on_a_gpu() -> None:
    body = api_body()
    body["HostConfig"]["DeviceRequests"] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    written = read(body).write("sha256:" + "b" * 64)
    assert written["HostConfig"]["DeviceRequests"] == [{"Count": -1, "Capabilities": [["gpu"]]}]


def test_no_container_gets_a_gpu_by_its_environment() -> None:
    body = api_body()
    body["Env"].append("NVIDIA_VISIBLE_DEVICES=all")
    with pytest.raises(Refused, match="NVIDIA_"):
        read(body)


@pytest.mark.parametrize("swap", [1 << 30, None])
def test_a_container_has_no_swap_whether_the_body_says_so_or_not(swap: int | None) -> None:
    body = task_body()
    body["HostConfig"]["MemorySwap"] = swap
    if swap is None:
        del body["HostConfig"]["MemorySwap"]
    assert read(body).write("sha256:a")["HostConfig"]["MemorySwap"] == 1 << 30


def test_a_key_twice_is_refused_although_its_last_value_is_harmless() -> None:
    raw = json.dumps(task_body())[:-1] + ', "HostConfig": ' + json.dumps(task_body()["HostConfig"]) + "}"
    with pytest.raises(Refused, match=r"HostConfig.*twice"):
        read_object(raw.encode())


def test_a_key_twice_is_seen_behind_an_escape() -> None:
    with pytest.raises(Refused, match="twice"):
        read_object(rb'{"Image": "a", "\u0049mage": "b"}')


def test_an_escaped_key_is_read_as_what_it_means() -> None:
    raw = json.dumps(task_body()).replace('"HostConfig": {', '"HostConfig": {"\\u0050rivileged": true, ')
    with pytest.raises(Refused, match=r"HostConfig\.Privileged"):
        read_create_body(read_object(raw.encode()))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{", b"{}{}", b'{"a": NaN}', b"\xff\xfe{\x00}\x00", b"[" * 100_000, b'{"a":\x00 1}']
)
def test_what_is_not_one_plain_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused):
        read_object(raw)


def test_a_refusal_names_every_place_and_shows_no_value() -> None:
    body = task_body()
    body["HostConfig"]["Privileged"] = True
    body["Env"].append("broken canary-secret")
    body["Surprise"] = "canary-secret"
    with pytest.raises(Refused) as refusal:
        read(body)
    assert "HostConfig.Privileged" in str(refusal.value)
    assert "Surprise" in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_a_task_is_named_as_the_contract_says() -> None:
    body = read(task_body())
    body.check_name(INSTANCE.container_name("digits"))
    for name in (None, "s3", "mlflow", "digits-blue-1", "airlock-other-train-0123456789"):
        with pytest.raises(Refused, match="name"):
            body.check_name(name)


def test_an_api_is_named_after_its_project_and_colour() -> None:
    body = read(api_body())
    body.check_name("digits-green-1")
    for name in ("haproxy", "other-blue-1", INSTANCE.container_name("digits")):
        with pytest.raises(Refused, match="name"):
            body.check_name(name)
