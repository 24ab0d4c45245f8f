"""Broken photo files, made from good ones: bytes flipped, cut, sizes in headers changed."""

import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pillow_heif
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "HEIF")
_SIZES = (0, 1, 7, 255, 256, 4096, 32767, 65535, 2**31 - 1, 2**32 - 1)


def originals(photos: Path) -> list[bytes]:
    """One portrait in each format."""
    pillow_heif.register_heif_opener()
    head = Image.open(photos / "obama.jpg").convert("RGB").crop((250, 60, 730, 610)).resize((160, 184))
    files = []
    for image_format in FORMATS:
        buffer = io.BytesIO()
        head.save(buffer, image_format)
        files.append(buffer.getvalue())
    return files


def mutated(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """That many broken files, always the same for a seed."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 1, 2, 5))):
            _break(rng, data)
        yield bytes(data)


def _break(rng: random.Random, data: bytearray) -> None:
    if not data:
        return
    # Half of the damage is done to the header: what stands there decides how much memory is asked for.
    at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 700))
    match rng.randrange(6):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
        case 2:
            del data[at:]
        case 3:
            del data[at : at + rng.randrange(1, 200)]
        case 4:
            size = rng.choice(_SIZES)
            data[at : at + 2] = struct.pack(rng.choice("<>") + "H", size & 0xFFFF)
        case _:
            data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(_SIZES))
