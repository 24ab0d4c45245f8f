"""Runs seeds, and reports the one that fails."""

from runtime.telemetry import logs
from tests.simulation.shortcuts import shortcuts
from tests.simulation.world import World


class FailedSeedError(AssertionError):
    """A run that did not end as the oracle says, or broke an invariant on its way. `lines`: what happened in it."""

    def __init__(self, seed: int, problem: BaseException, lines: list[str]) -> None:
        super().__init__(f"seed {seed}: {type(problem).__name__}: {problem}\nagain: make simulate SEED={seed}")
        self.seed, self.lines = seed, lines


def simulate(seed: int) -> World:
    """One run. Returns the world as it is at its end. Raises FailedSeedError."""
    world = World(seed)
    with shortcuts():
        try:
            world.run()
        except Exception as error:
            raise FailedSeedError(seed, error, world.schedule.lines) from error
    return world


def outcome_of(seed: int) -> str:
    """What happened and what was wrong at the end; nothing where the oracle agrees. For a process of its own."""
    logs.through_stdlib()
    try:
        simulate(seed)
    except FailedSeedError as error:
        return "\n".join([*error.lines, "", str(error)])
    return ""
