"""What goes wrong in a thread is raised in the loop that can stop the process."""

import threading

import pytest

from runtime.process.background import Background, Failure


def _wait_for(event: threading.Event) -> None:
    assert event.wait(20)


def test_what_the_thread_raises_is_raised_by_check() -> None:
    def work() -> None:
        raise ValueError("no such thing")

    background = Background(work, "test").start()
    background.join()
    for _ in range(2):  # the loop may catch it once, and look again
        with pytest.raises(ValueError, match="no such thing"):
            background.check()


def test_even_what_ends_a_process_is_raised_by_check() -> None:
    def work() -> None:
        raise SystemExit(3)

    background = Background(work, "test").start()
    background.join()
    with pytest.raises(SystemExit):
        background.check()


def test_while_it_runs_and_once_it_has_returned_nothing_is_raised() -> None:
    may_end = threading.Event()
    background = Background(lambda: _wait_for(may_end), "test").start()
    assert background.is_running
    background.check()
    may_end.set()
    background.join(20)
    background.check()


def test_a_process_may_end_while_it_runs() -> None:
    may_end = threading.Event()
    background = Background(lambda: _wait_for(may_end), "a daemon").start()
    assert next(one for one in threading.enumerate() if one.name == "a daemon").daemon
    may_end.set()
    background.join()


def test_what_a_callback_raises_is_kept_until_check() -> None:
    failure = Failure()
    with failure:
        pass
    failure.check()
    with failure:
        raise ValueError("in another's thread")
    with failure:  # a later one that goes well hides nothing
        pass
    with pytest.raises(ValueError, match="in another's thread"):
        failure.check()
