"""Every container of the running system against section 5 of the CIS Docker Benchmark 1.6, as the engine reports it.

Left out, by decision: 5.1 and 5.2 (AppArmor and SELinux are the host's), 5.11 (CPU shares: trainings take what is
free), 5.14 (API containers and services are restarted for ever: they have to come back), 5.18 (the engine's ulimits).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.system import System, docker, our_containers

Container = dict[str, Any]
SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/lib/docker")


@pytest.fixture(scope="module")
def containers(system: System) -> list[Container]:
    """Every container, as `docker inspect` tells it."""
    found: list[Container] = json.loads(docker("inspect", *our_containers()))
    roles = {container["Config"]["Labels"].get("airlock.role") for container in found}
    assert "api" in roles, "a model serves"
    return found


def host(container: Container) -> dict[str, Any]:
    limits: dict[str, Any] = container["HostConfig"]
    return limits


def binds(container: Container) -> list[str]:
    return [mount["Source"] for mount in container["Mounts"] if mount["Type"] == "bind"]


def is_gate(container: Container) -> bool:
    return bool(container["Config"]["Labels"].get("com.docker.compose.service") == "docker-gate")


RULES: dict[str, Callable[[Container], bool]] = {
    "4.1 runs as a user without rights": lambda c: c["Config"]["User"].partition(":")[0] in ("airlock", "10001"),
    "5.3 has no capabilities": lambda c: host(c)["CapDrop"] == ["ALL"] and not host(c)["CapAdd"],
    "5.4 is not privileged": lambda c: host(c)["Privileged"] is False,
    "5.5 mounts no sensitive directory of the host": lambda c: not set(binds(c)) & set(SENSITIVE),
    "5.9 is not on the host's network": lambda c: host(c)["NetworkMode"] in ("airlock", "airlock_control"),
    "5.10 has a memory limit": lambda c: host(c)["Memory"] > 0,
    "5.12 has a read-only root": lambda c: host(c)["ReadonlyRootfs"] is True,
    "5.13 publishes on a named address only": lambda c: all(
        binding["HostIp"] for bindings in (host(c)["PortBindings"] or {}).values() for binding in bindings or ()
    ),
    "5.15 has its own processes": lambda c: host(c)["PidMode"] == "",
    "5.16 has its own IPC": lambda c: host(c)["IpcMode"] == "private",
    "5.17 has no device of the host": lambda c: not host(c)["Devices"],
    "5.19 shares no mounts": lambda c: all(mount["Propagation"] != "shared" for mount in c["Mounts"]),
    "5.20 has its own host name": lambda c: host(c)["UTSMode"] == "",
    "5.21 and 5.25 keeps seccomp, gains no privileges": lambda c: (
        [option.partition(":")[0] for option in host(c)["SecurityOpt"]] == ["no-new-privileges"]
    ),
    "5.28 has a limit of processes": lambda c: (host(c)["PidsLimit"] or 0) > 0,
    "5.30 has no user namespace of the host's": lambda c: host(c)["UsernsMode"] == "",
    "5.31 has the engine's socket only where it is the gate": lambda c: (
        is_gate(c) or not any(source.endswith("docker.sock") for source in binds(c))
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_container(containers: list[Container], rule: str) -> None:
    assert [container["Name"] for container in containers if not RULES[rule](container)] == []


def test_every_service_that_stays_says_whether_it_is_well(containers: list[Container]) -> None:
    """5.26; an API container is asked by HAProxy."""
    services = [
        c for c in containers if "com.docker.compose.service" in c["Config"]["Labels"] and c["State"]["Running"]
    ]
    assert services
    assert [c["Name"] for c in services if "Healthcheck" not in c["Config"]] == []
