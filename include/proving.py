"""What a release must answer before it is trusted, and once more when it has the traffic."""

from __future__ import annotations

from include.api_checks import CheckFailed, check_health, check_identity, read_golden, replay_golden
from include.api_containers import base_url
from include.haproxy_config import server_name
from include.locked_objects import LockError
from include.reconciling import UP_SECONDS, wait_until_up
from include.releases import Colour, Record
from include.turns import Turn

HEALTH_ATTEMPTS = 20
HEALTH_INTERVAL_SECONDS = 2.0
LOG_LINES = 20


class NotProved(Exception):
    """An answer is wrong, late or missing; the message has the URL, status, time, and the container's last lines."""


def prove(turn: Turn, record: Record) -> None:
    """Every replica is healthy, is who it should be, and predicts what was recorded; HAProxy finds it well too."""
    project = turn.project
    colour = turn.state.candidate_named(record.release_id).colour
    for number in range(1, project.replicas + 1):
        base = base_url(project.name, colour, number)
        try:
            _wait_for_health(turn, base, record)
            _ask_everything(turn, record, base)
        except (CheckFailed, LockError) as error:
            raise NotProved(with_log(turn, colour, str(error), number)) from None
    if not wait_until_up(turn, colour, UP_SECONDS, least=project.replicas):
        raise NotProved(
            with_log(
                turn,
                colour,
                f"HAProxy does not find the {project.replicas} containers of release {record.release_id} well within "
                f"{UP_SECONDS} s, though they answer: look at HAProxy's log",
            )
        )


def prove_behind_the_door(turn: Turn, record: Record) -> None:
    """The front door answers as the release should, as clients see it."""
    try:
        _ask_everything(turn, record, f"{turn.world.front_url}/{turn.project.name}")
    except (CheckFailed, LockError) as error:
        colour = turn.state.candidate_named(record.release_id).colour
        raise NotProved(with_log(turn, colour, str(error))) from None


def with_log(turn: Turn, colour: Colour, message: str, number: int = 1) -> str:
    """The message, and the last lines of a container's log."""
    name = server_name(turn.project.name, colour, number)
    lines = turn.world.containers.last_log_lines(name, LOG_LINES)
    return f"{message}\nlast log lines of {name}:\n{lines or '(none)'}"


def _wait_for_health(turn: Turn, base: str, record: Record) -> None:
    for attempt in range(1, HEALTH_ATTEMPTS + 1):
        try:
            return check_health(turn.world.http, base, record)
        except CheckFailed as error:
            if attempt == HEALTH_ATTEMPTS:
                raise CheckFailed(f"not healthy after {attempt} attempts; the last: {error}") from None
            turn.wait(HEALTH_INTERVAL_SECONDS)


def _ask_everything(turn: Turn, record: Record, base: str) -> None:
    world, tolerance = turn.world, turn.project.golden_tolerance
    golden = read_golden(world.locked.read("golden predictions", record.dvc_hash_golden))
    check_health(world.http, base, record)
    check_identity(world.http, base, record)
    replay_golden(world.http, base, golden, tolerance)
