"""What the command line makes of an input: run in this process, judged by what it prints and how it ends."""

import io
import os
import re
import signal
import sys
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Literal
from unittest.mock import patch

Kind = Literal["clear", "unclear", "traceback", "silent", "hang", "security"]


class Hang(BaseException):
    """The limit of time is over."""


@dataclass(frozen=True)
class Ending:
    """Exit code and output of a command; code 1 with a traceback for an exception that left it."""

    code: int | None
    text: str


def run_command(argv: list[str], limit: int = 60) -> Ending:
    """Run the command line in this process.

    Args:
        limit: Seconds after which it counts as hanging: the code is None then.
    """
    from dualdistill.cli import main

    def stop(*_: object) -> None:
        raise Hang

    output, code = io.StringIO(), 0
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        with (
            patch.object(sys, "argv", ["dualdistill", *argv]),
            patch.dict(os.environ),
            redirect_stdout(output),
            redirect_stderr(output),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Hang:
        return Ending(None, output.getvalue())
    except BaseException:  # whatever it is, a user would see a traceback
        return Ending(1, output.getvalue() + traceback.format_exc())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Ending(code, output.getvalue())


def judge(ending: Ending, words: tuple[str, ...]) -> Kind:
    """The kind of an ending of a command with bad input.

    Args:
        words: Regular expressions of what the message must name.
    """
    if ending.code is None:
        return "hang"
    if "Traceback (most recent call last)" in ending.text:
        return "traceback"
    if ending.code == 0:
        return "silent"
    plain = re.sub(r"[\s│╭╮╰╯─]+", " ", ending.text)  # usage errors stand in a box
    named = all(re.search(word, plain, re.IGNORECASE) for word in words)
    return "clear" if ending.code == 2 and named else "unclear"
