"""`python -m api serve | evaluate`: the container's one entry."""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from api import log, results
from api.errors import ConfigError, Failure, Interrupted, Terminated
from api.evaluate import evaluate
from api.serve import serve
from api.settings import EvaluateSettings, ServeSettings, TaskSettings, read


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit code that docs/contracts.md gives its end."""
    log.to_stderr()
    commands: dict[str, Callable[[], None]] = {
        "serve": lambda: serve(read(ServeSettings)),
        "evaluate": _evaluate_task,
    }

    def run() -> None:
        if len(arguments) != 1 or arguments[0] not in commands:
            raise ConfigError(f"{arguments} is no command of this image. Give one of {', '.join(commands)}.")
        commands[arguments[0]]()

    failure = _failure_of(run)
    return failure.exit_code if failure else 0


def _evaluate_task() -> None:
    """`evaluate`, its end written to the result file whatever it is."""
    signal.signal(signal.SIGTERM, _interrupt)
    path = read(TaskSettings).result_path
    try:
        results.write(path, evaluate(read(EvaluateSettings)).model_dump_json(by_alias=True))
    except (Exception, Terminated) as cause:
        results.write_failure(path, _as_failure(cause))
        raise


def _failure_of(command: Callable[[], None]) -> Failure | None:
    """Runs the command; what ended it, logged, or None."""
    try:
        command()
    except (Exception, Terminated) as cause:
        failure = _as_failure(cause)
        bug = None if isinstance(cause, (Failure, Terminated)) else cause
        log.event("failed", level=logging.ERROR, exc_info=bug, kind=failure.kind, message=str(failure))
        return failure
    return None


def _as_failure(cause: BaseException) -> Failure:
    if isinstance(cause, Failure):
        return cause
    if isinstance(cause, Terminated):
        return Interrupted("The evaluation was stopped by SIGTERM before it had finished. Run it again.")
    return Failure(f"The API image failed with {type(cause).__name__}: {cause}. Its log has the traceback.")


def _interrupt(sig: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; the result must still be written
    raise Terminated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
