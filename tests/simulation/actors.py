"""Actors that take turns: each runs in a thread of its own, but only one at a time, and one seed decides which."""

import random
import threading
from collections.abc import Callable


class Crashed(BaseException):
    """The process of an actor ends here, in the middle of whatever it does."""


class Actor:
    """Work that is paused at calls into parts in memory, and can be crashed there.

    The thread runs only while `resume` waits for it, so that nothing happens at the same time as anything else.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.is_done = False
        self.is_crashing = False
        self._work = work
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def resume(self) -> None:
        """Go on until it pauses or ends. Raises what it raised."""
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def pause(self) -> None:
        """Called by the actor itself: others go on meanwhile. Raises Crashed where its process has ended by then."""
        self._back.release()
        self._go.acquire()
        if self.is_crashing:
            raise Crashed

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.is_crashing:
                self._work()
        except Crashed:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `resume`
            self._error = error
        self.is_done = True
        self._back.release()


class Schedule:
    """All that chance decides in one run, and a line for each thing that happened."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.current: Actor | None = None
        self._pauses = self.random.choice((0.02, 0.1, 0.3))  # of all calls

    @property
    def is_calm(self) -> bool:
        """Whether no actor runs: what is called then is called without faults."""
        return self.current is None

    def chance(self, share: float) -> bool:
        """True in that share of all cases; never while it is calm."""
        return not self.is_calm and self.random.random() < share

    def note(self, line: str) -> None:
        """Write down what happens, and who does it."""
        self.lines.append(line if self.current is None else f"{self.current.name}: {line}")

    def call(self, what: str) -> None:
        """Every call into a part in memory begins with this: others may go on here, and the process may end."""
        if self.current is None:
            return
        if self.current.is_crashing:
            raise Crashed  # from a handler of Crashed: a process that is killed has none
        self.note(what)
        if self.chance(self._pauses):
            self.current.pause()

    def resume(self, actor: Actor) -> None:
        """Have an actor go on until it pauses or ends. Raises what it raised."""
        before, self.current = self.current, actor
        try:
            actor.resume()
        finally:
            self.current = before

    def crash(self, actor: Actor) -> None:
        """End an actor where it stands."""
        actor.is_crashing = True
        while not actor.is_done:
            self.resume(actor)
