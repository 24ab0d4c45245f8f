"""One set of real servers for all tests; a world of its own for each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.stack import Stack
from tests.integration.world import Lines, World, running_servers

MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[Stack, Lines]]:
    """Kafka, PostgreSQL and Valkey on ports of their own. Fails, never skips, where one does not start.

    Not below pytest's folder: every pytest that starts closes it to others, and PostgreSQL does not run as root.
    """
    with running_servers() as (stack, lines, _):
        yield stack, lines


@pytest.fixture
def make_world(servers: tuple[Stack, Lines], tmp_path: Path) -> Iterator[MakeWorld]:
    """Makes worlds with settings of their own; their workers are stopped when the test ends."""
    worlds: list[World] = []

    def make(**settings: Any) -> World:
        world = World(*servers, tmp_path / "data", **settings)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.stop()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A world with default settings."""
    return make_world()
