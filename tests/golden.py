"""Golden embeddings: what each version of the pipeline makes of four photos. `python -m tests.golden` adds a version.

An encoder's id names its weights and PIPELINE, and embeddings of one id are compared: whatever makes other embeddings
of the same photos needs another number. Photos are the demo's; kept are the embeddings alone.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consumers.faces.detectors import CnnDetector, FaceDetector, HogDetector
from consumers.faces.encoder import PIPELINE, FaceEncoder, models_folder
from consumers.photos.file import PhotoFile
from deploy.demo.photos import fetch_demo_photos
from schemas.settings import STACK_FOLDER, Settings

FILE = Path(__file__).with_name("golden-embeddings.json")
_PHOTOS = ("biden.jpg", "obama2.jpg", "32bit.png")
Embeddings = dict[str, NDArray[np.float32]]


def embeddings_now(photos: Path, cache: Path) -> Embeddings:
    """The embeddings, each float32 of shape (128,), that this code makes, by detector and photo."""
    files = {name: (photos / name).read_bytes() for name in _PHOTOS} | {"small": _small(photos / "obama2.jpg")}
    encoder = FaceEncoder(models_folder(), cache)
    detectors: tuple[FaceDetector, ...] = (HogDetector(cache), CnnDetector(models_folder(), cache))
    found = {}
    for detector in detectors:
        for name, data in files.items():
            photo = PhotoFile(data, 50_000_000)
            (faces,) = detector.find([photo])
            assert isinstance(faces, list), f"{name}: {faces}"
            if not faces:
                continue  # the CNN does not see the small one
            (found[f"{detector.kind}/{name}"],) = encoder.embed(encoder.align(photo, faces[0]).chip[None])
    return found


def golden_embeddings() -> dict[int, Embeddings]:
    """The embeddings that are kept, by PIPELINE."""
    kept = json.loads(FILE.read_text())
    return {
        int(pipeline): {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in embeddings.items()}
        for pipeline, embeddings in kept.items()
    }


def _small(photo: Path) -> bytes:
    """A face of about 90 pixels in a photo of 1600, which HOG sees at its last look only, as BMP: no codec is in it."""
    canvas = Image.new("RGB", (1600, 1600), (90, 120, 90))
    with Image.open(photo) as image:
        canvas.paste(image.convert("RGB").reduce(4), (900, 300))
    buffer = io.BytesIO()
    canvas.save(buffer, "BMP")
    return buffer.getvalue()


def add_version() -> None:
    """Keep the embeddings of this code under its PIPELINE. What is kept is never changed."""
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    if str(PIPELINE) in kept:
        raise SystemExit(
            f"the embeddings of PIPELINE {PIPELINE} are kept already: raise it in consumers/faces/encoder.py"
        )
    photos = fetch_demo_photos(STACK_FOLDER.resolve() / "photos")
    embeddings = embeddings_now(photos, Settings().model_cache)
    kept[str(PIPELINE)] = {
        name: base64.b64encode(embedding.astype("<f4").tobytes()).decode() for name, embedding in embeddings.items()
    }
    FILE.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    add_version()
