"""What the user can put right is shown without a traceback, whichever command meets it."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from deploy.cli import app
from deploy.commands.app import Application, Command
from schemas.faults import UserFault

ROOT = Path(__file__).parents[2]


class _WrongWayError(UserFault):
    """Of the test."""


def failing(error: Exception) -> Application:
    """An application whose command `go` meets that error; `stay` is there so that it has to be named."""
    application = Application()

    @application.command()
    def go() -> None:
        raise error

    @application.command()
    def stay() -> None:
        pass

    return application


def commands_of(command: Any) -> Iterator[Any]:
    """All commands, those of groups too."""
    if isinstance(command, TyperGroup):
        for one in command.commands.values():
            yield from commands_of(one)
    else:
        yield command


def test_a_fault_of_the_user_is_shown_and_its_status_is_2() -> None:
    done = CliRunner().invoke(failing(_WrongWayError("turn round: --back")), ["go"])
    assert done.exit_code == 2
    assert "turn round: --back" in done.output
    assert "go [OPTIONS]" in done.output  # the usage of this very command


def test_any_other_error_keeps_its_traceback() -> None:
    done = CliRunner().invoke(failing(ValueError("ours")), ["go"])
    assert done.exit_code == 1
    assert isinstance(done.exception, ValueError)


def test_every_command_shows_faults() -> None:
    commands = list(commands_of(get_command(app)))
    assert {"submit", "discard", "match"} <= {command.name for command in commands}
    assert [command.name for command in commands if not isinstance(command, Command)] == []


def test_no_two_exceptions_have_one_name() -> None:
    packages = ("schemas", "runtime", "producers", "consumers", "streams", "deploy")
    texts = (file.read_text() for package in packages for file in (ROOT / package).rglob("*.py"))
    names = Counter(name for text in texts for name in re.findall(r"^class (\w+(?:Error|Fault))\b", text, re.MULTILINE))
    assert names["UserFault"] == 1
    assert [name for name, count in names.items() if count > 1] == []
