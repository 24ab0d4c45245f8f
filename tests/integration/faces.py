"""Many small photos with faces, cut from the demo's photos with a little variation: quick to encode, and real."""

import random
from pathlib import Path

from PIL import Image, ImageEnhance

# Where the subject's head is: (left, top, right, bottom) in pixels.
_HEADS = {
    "obama.jpg": (320, 80, 650, 440),
    "obama2.jpg": (140, 220, 470, 590),
    "obama3.jpg": (590, 190, 1000, 640),
    "biden.jpg": (370, 160, 790, 610),
}


def make_faces(photos: Path, folder: Path, count: int, seed: int = 1) -> list[Path]:
    """That many different files of about 150 × 150 pixels, by a seeded choice of photo, crop, size and brightness."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    heads = {name: Image.open(photos / name).convert("RGB").crop(box) for name, box in _HEADS.items()}
    files = []
    for number in range(count):
        head = heads[rng.choice(sorted(heads))].rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
        margin = rng.uniform(0.0, 0.1)
        width, height = head.size
        head = head.crop((int(margin * width), int(margin * height), int((1 - margin) * width), height))
        head = head.resize((rng.randint(130, 170), rng.randint(140, 180)))
        head = ImageEnhance.Brightness(head).enhance(rng.uniform(0.6, 1.3))
        files.append(folder / f"{number}.jpg")
        head.save(files[-1], quality=85)
    return files
