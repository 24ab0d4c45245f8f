"""One process of an encoder pool: its networks, its limits, and a batch of photos.

It imports no Kafka client and no photo store: processes are started anew whenever a photo ends one.
"""

import resource
import signal
from enum import StrEnum

from consumers.encoder.answers import Result, Task, too_large_for_memory
from consumers.encoder.encoding import Encoding
from consumers.faces.detectors import CnnDetector, HogDetector
from consumers.faces.encoder import FaceEncoder, models_folder
from consumers.faces.networks.sessions import has_cuda
from schemas.events.base import Detector
from schemas.settings import Settings


class Pool(StrEnum):
    """Which pool a worker belongs to."""

    CPU = "cpu"
    GPU = "gpu"


DETECTOR_OF = {Pool.CPU: Detector.HOG, Pool.GPU: Detector.CNN}
_CPU_BATCH = 4  # a chip takes the ResNet a sixth less among four than alone; more gain nothing

_encoding: Encoding | None = None
_seconds_each = 0


def batch_of(settings: Settings, pool: Pool) -> int:
    """How many photos a process is given at once. The CNN takes 140 bytes a pixel for each: one at a time on a CPU."""
    if pool is Pool.CPU:
        return _CPU_BATCH
    return settings.gpu_batch if has_cuda() else 1


def longest_encoding_s(settings: Settings, pool: Pool) -> float:
    """How long it takes to give a photo up: its batch, the same alone, and each photo of that, up to their limits."""
    return 3.0 * batch_of(settings, pool) * settings.encoder_photo_s


def load_encoding(settings: Settings, pool: Pool) -> Encoding:
    """The networks of a pool, and what is done with them."""
    models, cache = models_folder(), settings.model_cache
    detector = HogDetector(cache) if pool is Pool.CPU else CnnDetector(models, cache, batch_of(settings, pool))
    return Encoding(settings, detector, FaceEncoder(models, cache))


def load(settings: Settings, pool: Pool) -> None:
    """What a process does first."""
    global _encoding, _seconds_each  # noqa: PLW0603 - of this process: models are loaded once
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not has_cuda():  # whose driver asks for far more than it uses
        most = settings.encoder_memory_mb * 1_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold photos
    _encoding = load_encoding(settings, pool)
    _seconds_each = settings.encoder_photo_s


def provider() -> str:
    """What this process's detector runs on: "cpu" or "cuda"."""
    assert _encoding is not None
    return _encoding.provider


def encode(tasks: list[Task]) -> list[Result]:
    """The result of each task. A photo that takes too long ends the process: no exception reaches native code.

    Where memory does not suffice for all at once, each is tried alone, and rejected if it does not suffice for that.
    """
    assert _encoding is not None
    signal.setitimer(signal.ITIMER_REAL, _seconds_each * len(tasks))
    try:
        return _encoding.encode(tasks)
    except Exception as error:
        if not _is_lack_of_memory(error):
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if len(tasks) == 1:
        return [too_large_for_memory(tasks[0])]
    return [result for task in tasks for result in encode([task])]


def _is_lack_of_memory(error: Exception) -> bool:
    """onnxruntime has no exception of its own for it."""
    return isinstance(error, MemoryError) or "Failed to allocate memory" in str(error)
