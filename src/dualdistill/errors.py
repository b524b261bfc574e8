"""Errors that the user can fix, with a message instead of a traceback."""

from importlib import import_module
from types import ModuleType


class UserError(Exception):
    """Invalid input: the message states what was expected, what was given, and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """


class DivergedError(UserError):
    """A network's output is not finite, because its training diverged."""


def optional(module: str, extra: str, use: str, advice: str = "") -> ModuleType:
    """The module of an extra.

    Args:
        use: What needs it, the beginning of the message.
        advice: What else the user can do.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        needs = f"{use} needs {module.partition('.')[0]}, which cannot be imported ({error})"
        raise UserError(f"{needs}: pip install 'dualdistill[{extra}]'{advice}.") from None


def first_line(error: BaseException) -> str:
    """First line of an error's message; the error's name if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
