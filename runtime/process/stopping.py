"""How a worker stops, on a signal or after a fault, whatever it waits for."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

STOP_WITHIN_S = 15


def on_stop_signal(stop: Callable[[], object]) -> None:
    """Have SIGTERM and SIGINT call `stop`, which lets the process end by itself; soon after it ends in any case."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        exit_within()
        stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)


def exit_within() -> None:
    """End the process by SIGALRM unless it has ended by itself in STOP_WITHIN_S seconds.

    Clients wait without limit for a broker that is away, while they are closed too (librdkafka #3740). What was not
    committed comes again, so nothing is lost by not waiting with them.
    """
    if threading.current_thread() is threading.main_thread():  # no other may; the default is the default anyway
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(STOP_WITHIN_S)
