"""One process of an encoder pool: its networks, its limits, and a batch of photos.

It imports no Kafka client and no photo store: processes are started anew whenever a photo ends one.
"""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from consumers.encoder.answers import Result, Task, too_large_for_memory
from consumers.encoder.encoding import Encoding
from consumers.encoder.pool.worker_process import now_at
from consumers.faces.encoders import open_detector, open_encoder
from consumers.faces.networks.sessions import has_cuda
from consumers.photos.file import Guard
from schemas.events.base import Detector
from schemas.settings import Settings


class Pool(StrEnum):
    """Which pool a worker belongs to."""

    CPU = "cpu"
    GPU = "gpu"


DETECTOR_OF = {Pool.CPU: Detector.HOG, Pool.GPU: Detector.CNN}
_CPU_BATCH = 4  # a chip takes the ResNet a sixth less among four than alone; more gain nothing

_encoding: Encoding | None = None
_seconds_each = 0.0
# A batch takes so many times the processor time of a photo by the clock before its process is taken for stuck: machines
# are busy, and what is slow is no bad photo.
_STUCK_AFTER = 30


def batch_of(settings: Settings, pool: Pool) -> int:
    """How many photos a process is given at once. The CNN takes 140 bytes a pixel for each: one at a time on a CPU."""
    if pool is Pool.CPU:
        return _CPU_BATCH
    return settings.gpu_batch if has_cuda() else 1


def longest_batch_s(settings: Settings) -> float:
    """How long a process may take for a batch by the clock, in seconds."""
    return float(_STUCK_AFTER * settings.encoder_photo_s)


def longest_encoding_s(settings: Settings) -> float:
    """How long it takes to give a photo up, in seconds: in its batch, and once more alone."""
    return 2 * longest_batch_s(settings)


def load_encoding(settings: Settings, pool: Pool, encoder: str) -> Encoding:
    """The networks of an encoder, by its name, in a pool, and what is done with them."""
    detector = open_detector(settings, encoder, pool is Pool.GPU, batch_of(settings, pool))
    return Encoding(settings, detector, open_encoder(settings, encoder))


def load(settings: Settings, pool: Pool, encoder: str) -> str:
    """Begins a process: its limits and networks. Returns what its detector runs on, "cpu" or "cuda"."""
    global _encoding, _seconds_each  # noqa: PLW0603 - of this process: models are loaded once
    if not has_cuda():  # whose driver asks for far more than it uses
        most = settings.encoder_memory_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold photos
    _encoding = load_encoding(settings, pool, encoder)
    _seconds_each = settings.encoder_photo_s
    return _encoding.provider


def encode(tasks: list[Task]) -> list[Result]:
    """The result of each task.

    Where memory does not suffice for all at once, each is tried alone, and rejected if it does not suffice for that.
    A photo whose file takes too much processor time to read ends the process: no exception reaches native code.
    """
    assert _encoding is not None
    guards = [_guard(number, _seconds_each) for number in range(len(tasks))]
    try:
        return _encoding.encode(tasks, guards)
    except Exception as error:
        if not _is_lack_of_memory(error):
            raise
    return [_encode_alone(task, guard) for task, guard in zip(tasks, guards, strict=True)]


def _encode_alone(task: Task, guard: Guard) -> Result:
    assert _encoding is not None
    try:
        (result,) = _encoding.encode([task], [guard])
    except Exception as error:
        if not _is_lack_of_memory(error):
            raise
        return too_large_for_memory(task)
    return result


def _guard(number: int, seconds: float) -> Guard:
    """Bounds the processor time of all that reads one photo's file, the task of that number.

    SIGPROF ends the process: the parent knows by that, and by `now_at`, of what.
    """
    left = seconds

    @contextmanager
    def guard() -> Iterator[None]:
        nonlocal left
        now_at(number)
        signal.setitimer(signal.ITIMER_PROF, left)
        try:
            yield
        finally:
            left = max(signal.setitimer(signal.ITIMER_PROF, 0)[0], 0.001)
            now_at(None)

    return guard


def _is_lack_of_memory(error: Exception) -> bool:
    """onnxruntime has no exception of its own for it."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error)
