"""`make bench-encoder`: the encoder against the face_recognition package, in one run. Prints Markdown tables."""

import io
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

from consumers.encoder.answers import Task
from consumers.encoder.encoding import Encoding
from consumers.encoder.process import Pool, batch_of, load_encoding
from consumers.faces.encoder import models_folder
from consumers.faces.encoders import open_detector, open_encoder
from consumers.faces.networks.mmod import MmodDetector
from consumers.photos.file import PhotoFile
from deploy.demo.photos import fetch_demo_photos
from deploy.local.stack import Stack
from deploy.setup.weights import fetch_weights
from schemas.encoders.known import FACE_RECOGNITION, SHIPPED
from schemas.envelope import announce
from schemas.events.registrations import IndividualCreated, Photo
from schemas.settings import STACK_FOLDER, Settings
from tests.bench.machine import begin_benchmark, print_table, sized
from tests.bench.through_kafka import photos_per_second

MEGAPIXELS = sized((0.06, 0.3, 1.4, 5.0, 12.0), (0.06,))
REPEATS, REPEATS_OF_SLOW = sized((7, 3), (1, 1))
CNN_SIZE = sized((640, 480), (240, 180))
_HEAD = (250, 10, 730, 610)  # of obama.jpg: as a registration photo shows a person, 4 : 5
POOL_PHOTOS, POOL_WARM, POOL_RUNS = sized((2000, 20, 3), (20, 4, 1))
POOL_PIXELS = 0.3
CORES = 2


def portrait(photos: Path, megapixels: float) -> bytes:
    """A registration photo of that size, as a JPEG file."""
    head = Image.open(photos / "obama.jpg").convert("RGB").crop(_HEAD)
    factor = (megapixels * 1e6 / (head.width * head.height)) ** 0.5
    buffer = io.BytesIO()
    size = (round(head.width * factor), round(head.height * factor))
    head.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def medians(works: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median milliseconds of each, measured in turn, so that what else the machine does meets all alike.

    Each turn runs a work twice and takes the second time: a worker does one work only, and has its caches for itself.
    """
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(repeats):
        for work, taken in zip(works, times, strict=True):
            work()
            begun = time.perf_counter()
            work()
            taken.append((time.perf_counter() - begun) * 1000)
    return [statistics.median(taken) for taken in times]


def against_face_encodings(photos: Path, settings: Settings) -> None:
    """Photo file → embedding by each encoder, on one core, as its CPU pool does it."""
    import face_recognition

    parts = {
        name: (open_detector(settings, name, is_gpu=False, batch=1), open_encoder(settings, name)) for name in SHIPPED
    }
    rows = []
    for megapixels in MEGAPIXELS:
        data = portrait(photos, megapixels)
        found: dict[str, int] = {}

        def theirs(data: bytes = data, found: dict[str, int] = found) -> None:
            encodings = face_recognition.face_encodings(face_recognition.load_image_file(io.BytesIO(data)))
            found["theirs"] = len(encodings)

        def ours(name: str, data: bytes = data, found: dict[str, int] = found) -> None:
            detector, encoder = parts[name]
            photo = PhotoFile(data, 50_000_000)
            (faces,) = detector.find([photo])
            assert isinstance(faces, list)
            encoder.embed(np.stack([encoder.align(photo, face).chip for face in faces]))
            found[name] = len(faces)

        works: list[Callable[[], object]] = [theirs, *(partial(ours, name) for name in SHIPPED)]
        slow, *fast = medians(works, REPEATS_OF_SLOW if megapixels > 1 else REPEATS)
        rows.append(
            (
                f"{megapixels:g}",
                f"{slow:.1f}",
                *(f"{one:.1f} ({slow / one:.1f}×)" for one in fast),
                ", ".join(map(str, found.values())),
            )
        )
    print_table(("megapixels", "face_encodings, ms", *(f"{name}, ms" for name in SHIPPED), "faces"), rows)


def against_dlibs_cnn(photos: Path, settings: Settings) -> None:
    """Photo array of `CNN_SIZE` → faces by the CNN, on one core."""
    pixels = np.asarray(Image.open(photos / "obama.jpg").convert("RGB").crop((0, 100, 910, 782)).resize(CNN_SIZE))
    weights = models_folder() / "mmod_human_face_detector.dat"
    theirs = dlib.cnn_face_detection_model_v1(str(weights))
    ours = MmodDetector(weights, settings.model_cache)
    found = len(theirs(pixels, 0)), len(ours.detect([pixels])[0])
    slow, fast = medians([lambda: theirs(pixels, 0), lambda: ours.detect([pixels])], REPEATS_OF_SLOW)
    print_table(
        (f"CNN, {CNN_SIZE[0]} × {CNN_SIZE[1]}", "dlib, ms", "facematch, ms", "ratio", "faces found by each"),
        [("", f"{slow:.0f}", f"{fast:.0f}", f"{slow / fast:.1f}×", f"{found[0]}, {found[1]}")],
    )


def _task(data: bytes, number: int) -> Task:
    event = IndividualCreated(collection="c", individual_id=str(number), revision=1, photo=Photo(uri="file:///x"))
    return Task(announce(event, "bench"), data)


_encoding: Encoding | None = None


def _load(settings: Settings) -> None:
    global _encoding  # noqa: PLW0603 - one for each process, as in the pool
    _encoding = load_encoding(settings, Pool.CPU, FACE_RECOGNITION)


def _bare(arguments: tuple[bytes, int]) -> None:
    """Encode that many, in batches as the pool's."""
    assert _encoding is not None
    data, count = arguments
    batch = batch_of(Settings(), Pool.CPU)
    for number in range(0, count, batch):
        _encoding.encode([_task(data, number + i) for i in range(batch)])


def one_process(pool: Pool, encoder: str, files: list[str]) -> None:
    """In a process of its own: its peak memory in MB after photos of all sizes, twice."""
    encoding = load_encoding(Settings(), pool, encoder)
    for number, file in enumerate(files * 2):
        encoding.encode([_task(Path(file).read_bytes(), number)])
    status = Path("/proc/self/status").read_text()  # ru_maxrss counts what the process was before it was this one
    print(next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM")))


def memory(photos: Path, folder: Path) -> None:
    """Of one process of each pool."""
    files = []
    for megapixels in MEGAPIXELS:
        files.append(folder / f"{megapixels}.jpg")
        files[-1].write_bytes(portrait(photos, megapixels))
    rows = []
    for pool in Pool:
        peaks = []
        for name in SHIPPED:
            command = [sys.executable, "-m", "tests.bench.encoder", "one-process", pool.value, name, *map(str, files)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(f"{float(done.stdout):.0f}")
        rows.append((f"{pool.value} pool", *peaks))
    print_table(("one process after photos of all sizes: peak memory", *(f"{name}, MB" for name in SHIPPED)), rows)


def whole_pool(photos: Path, settings: Settings, folder: Path) -> None:
    """Photos a second from Kafka to Kafka, against the bare loop on as many processes of the same cores."""
    data = portrait(photos, POOL_PIXELS)
    stack = Stack(folder / "stack", lambda *_: None)
    ratios, rows = [], []
    try:
        stack.start_servers(lambda _: None)
        with multiprocessing.get_context("spawn").Pool(CORES, _load, (settings,)) as bare:
            bare.map(_bare, [(data, POOL_WARM)] * CORES, chunksize=1)
            for run in range(1, POOL_RUNS + 1):
                begun = time.perf_counter()
                bare.map(_bare, [(data, POOL_PHOTOS // CORES)] * CORES, chunksize=1)
                alone = POOL_PHOTOS / (time.perf_counter() - begun)
                through, first_s = photos_per_second(stack, folder / f"run{run}", data, POOL_PHOTOS)
                ratios.append(through / alone)
                rows.append((str(run), f"{alone:.0f}", f"{through:.0f}", f"{through / alone:.2f}", f"{first_s:.1f}"))
    finally:
        stack.stop()
    rows.append(("median", "", "", f"{statistics.median(ratios):.2f}", ""))
    columns = ("run", "bare loop, photos/s", "whole pool, photos/s", "ratio", "worker's start to first encoding, s")
    print_table(columns, rows)


def main() -> None:
    """Everything, in the order of the tables in docs/measured.md."""
    photos, settings = fetch_demo_photos(STACK_FOLDER.resolve() / "photos"), Settings()
    fetch_weights(settings)
    begin_benchmark()
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        os.sched_setaffinity(0, {min(cores)})
        against_face_encodings(photos, settings)
        against_dlibs_cnn(photos, settings)
        memory(photos, Path(folder))
        os.sched_setaffinity(0, cores)
        whole_pool(photos, settings, Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one-process"]:
        one_process(Pool(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        main()
