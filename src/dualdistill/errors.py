"""Input that cannot work, and machines that cannot go on: explained in words."""

from importlib import import_module
from types import ModuleType


class UserError(Exception):
    """The user's input is wrong: the message states what was expected, what came, and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """


class DivergedError(UserError):
    """A network answers with numbers that are not finite: its training went wrong, and no result can be made of it."""


def optional(module: str, extra: str, use: str, advice: str = "") -> ModuleType:
    """The module of an extra.

    Args:
        use: What needs it, the beginning of the message.
        advice: What else the user can do.

    Raises:
        UserError: where it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        needs = f"{use} needs {module.partition('.')[0]}, which cannot be imported ({error})"
        raise UserError(f"{needs}: pip install 'dualdistill[{extra}]'{advice}.") from None


def first_line(error: BaseException) -> str:
    """The beginning of a message that may be long; the name of the error where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
