"""Whatever makes other embeddings of the same photos raises PIPELINE, and with it the encoder's id."""

from pathlib import Path

import numpy as np
import pytest

from consumers.faces import detectors, encoder
from schemas.settings import Settings
from tests.golden import Embeddings, embeddings_now, golden_embeddings

# Measured: a padding of 0.249 for 0.25 moves these by 0.007 to 0.019, 0.24 by 0.047 to 0.057; a grey level more or less
# in each thousandth value of an aligned face by 0.0005, in one value by 0.0001; float32 in another order by 0.000002.
_TOLERANCE = 0.002

CHANGED = (
    "the embeddings of these photos are no longer those of PIPELINE {pipeline} (farthest moved: {name}, by {by:.4f}). "
    "Old and new ones would have one encoder's id, and be compared. If the change is meant: raise PIPELINE in "
    "consumers/faces/encoder.py, run `python -m tests.golden`, commit tests/golden-embeddings.json with it, and replay "
    "what the new encoder is to encode (`facematch replay`). If not: take back what changed alignment, decoding, "
    "detection sizes or a library's version"
)


def farthest(now: Embeddings) -> tuple[float, str]:
    golden = golden_embeddings()[encoder.PIPELINE]
    assert golden.keys() == now.keys()
    return max((float(np.linalg.norm(now[name] - golden[name])), name) for name in golden)


def test_the_pipeline_has_golden_embeddings_and_makes_them(photos: Path) -> None:
    assert encoder.PIPELINE in golden_embeddings(), (
        f"PIPELINE is {encoder.PIPELINE} now: `python -m tests.golden` keeps its embeddings; commit them"
    )
    by, name = farthest(embeddings_now(photos, Settings().model_cache))
    assert by <= _TOLERANCE, CHANGED.format(pipeline=encoder.PIPELINE, name=name, by=by)


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (encoder, "_PADDING", 0.249),
        (encoder, "_DETAILED", 140),
        (detectors, "HOG_LONG_SIDES", (319, 640, 1280)),
        (detectors, "HOG_LONG_SIDES", (320, 620, 1280)),
        (detectors, "HOG_LONG_SIDES", (320, 640, 1260)),
        (detectors, "CNN_LONG_SIDE", 790),
    ],
)
def test_a_small_change_moves_them_far_beyond_the_tolerance(
    photos: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str, value: object
) -> None:
    monkeypatch.setattr(module, name, value)
    by, _ = farthest(embeddings_now(photos, Settings().model_cache))
    assert by > 3 * _TOLERANCE
