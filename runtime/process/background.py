"""Threads whose failure is not lost: it is raised in the loop that can stop the process."""

import threading
from collections.abc import Callable
from typing import Self


class Failure:
    """Within `with` it takes what is raised; `check` raises that, in whichever thread calls it.

    For callbacks that run in another's threads, where nobody sees what they raise.
    """

    def __init__(self) -> None:
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        self._error = error or self._error
        return error is not None

    def check(self) -> None:
        """Raise what was raised last, if anything was."""
        if self._error is not None:
            raise self._error


class Background:
    """Runs a function in a thread that does not keep the process from ending.

    Whoever depends on it calls `check` from time to time: it raises what the function raised.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work = work
        self._failure = Failure()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> Self:
        """Begin. Once."""
        self._thread.start()
        return self

    @property
    def is_running(self) -> bool:
        """Whether the function was begun and has not returned or failed."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise what the function raised, if it did."""
        self._failure.check()

    def join(self, seconds: float | None = None) -> None:
        """Return once the function has returned or failed (see `check`), or after so many seconds."""
        self._thread.join(seconds)

    def _run(self) -> None:
        with self._failure:
            self._work()
