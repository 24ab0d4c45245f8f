"""A server is away while the others answer: each command says so in a line, or does not need it."""

from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from deploy.cli import app
from runtime.servers import refusals
from tests.integration.world import World

PAIR = str(UUID(int=1))
NOBODY = "127.0.0.1:1"
AWAY = {
    "Kafka": {"FACEMATCH_KAFKA": NOBODY},
    "Redis": {"FACEMATCH_REDIS": f"redis://{NOBODY}/0"},
    "Postgres": {"FACEMATCH_POSTGRES": f"postgresql+psycopg2://postgres@{NOBODY}/facematch"},
}
COMMANDS = (
    "status",
    "duplicates --collection c",
    "conflicts",
    "certificates",
    f"decide {PAIR} same --by me",
    "erased a",
    "erase a",
    "setup",
    "replay --collection c",
    "what-if --threshold 0.4",
    "dead-letters list",
    "dead-letters show individuals/1/1",
    "skip individuals/1/1",
    "outbox --create",
)
SERVERS_OF_THEIR_OWN = {"demo", "up", "down"}
WAIT_FOR_SERVERS = {"compact", "compactor", "encode", "match", "sink", "outbox", "submit"}
ASK_NOBODY = {"settings", "grants"}


def test_no_command_is_forgotten() -> None:
    listed = {command.split()[0] for command in COMMANDS}
    known = {
        one.name or str(getattr(one.callback, "__name__", "")).replace("_", "-") for one in app.registered_commands
    }
    assert known - SERVERS_OF_THEIR_OWN - WAIT_FOR_SERVERS - ASK_NOBODY - listed == set()


@pytest.mark.parametrize("server", AWAY)
def test_a_server_that_is_away_is_a_line(world: World, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_ASKED_S", 0.1)
    runner = CliRunner(env={**world.env, **AWAY[server], "COLUMNS": "400"})
    done = {command: runner.invoke(app, command.split()) for command in COMMANDS}
    wrong = {command: result.output[-500:] for command, result in done.items() if not is_as_it_must_be(result, server)}
    assert wrong == {}
    assert any(f"{server} does not answer" in result.output for result in done.values()), "nobody asked it"


def is_as_it_must_be(result: Result, server: str) -> bool:
    """It names the server in its error; or had no need of it, and may have another complaint in a line."""
    if isinstance(result.exception, SystemExit) and result.exit_code == 2:
        return f"{server} does not answer" in result.output or "does not answer" not in result.output
    return result.exception is None or isinstance(result.exception, SystemExit)
