"""The kinds of failure that end a command, and their exit codes (docs/contracts.md)."""

from typing import ClassVar


class Failure(Exception):
    """Ends the command. Its message names the thing, the cause and the next step."""

    kind: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 70


class ConfigError(Failure):
    """The environment, or the run that it names, is not what this command can work with."""

    kind = "config"
    exit_code = 78


class DataError(Failure):
    """Bytes are not what was promised; trying again changes nothing."""

    kind = "data"
    exit_code = 65


class Unavailable(Failure):
    """MLflow or the S3 server could not be reached; trying again may help."""

    kind = "unavailable"
    exit_code = 69


class Interrupted(Failure):
    """The command was stopped before it had finished."""

    kind = "interrupted"
    exit_code = 143


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`: what explains a model's or a picture's failures must not take it for one."""
