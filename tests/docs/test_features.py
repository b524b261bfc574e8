"""Every command of the page of features exists, with its options."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from dualdistill.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
COMMANDS = sorted({*re.findall(r"`dualdistill ([^`]+)`", PAGE.read_text())})


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_is_one_of_the_command_line(line):
    command, words = get_command(app), shlex.split(line)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known | {"--help"}
