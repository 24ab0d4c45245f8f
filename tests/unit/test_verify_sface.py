"""`facematch encoder verify --encoder sface`: what it compares with OpenCV, and that it notices what is wrong."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from consumers.faces.networks.yunet import Yunet, YunetFaces
from deploy.setup.weights import WeightsUnavailableError, fetch_weights
from deploy.verify.opencv import verify_by_opencv
from schemas.encoders.known import shipped
from schemas.settings import Settings

SFACE = shipped("sface")


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Settings of a machine that has the weights of sface; without them nothing here can be tried."""
    found = Settings()
    try:
        fetch_weights(found)
    except WeightsUnavailableError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=120, quiet=False)


def test_landmarks_and_embeddings_are_those_of_opencv(settings: Settings, console: Console, photos: Path) -> None:
    assert verify_by_opencv(console, settings, SFACE, photos)
    assert "obama2.jpg" in console.export_text()


def test_another_alignment_is_noticed(settings: Settings, console: Console, photos: Path) -> None:
    assert SFACE.alignment.template is not None
    moved = tuple((x + 4, y) for x, y in SFACE.alignment.template)
    other = SFACE.model_copy(update={"alignment": SFACE.alignment.model_copy(update={"template": moved})})
    assert not verify_by_opencv(console, settings, other, photos)


def test_landmarks_in_another_place_are_noticed(
    settings: Settings, console: Console, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Yunet.find

    def shifted(self: Yunet, pixels: np.ndarray, least_score: float) -> YunetFaces:
        faces = find(self, pixels, least_score)
        return faces._replace(landmarks=faces.landmarks + np.float32(0.2))

    monkeypatch.setattr(Yunet, "find", shifted)
    assert not verify_by_opencv(console, settings, SFACE, photos)


def test_a_folder_in_which_nobody_is_seen_does_not_verify(settings: Settings, console: Console, tmp_path: Path) -> None:
    assert not verify_by_opencv(console, settings, SFACE, tmp_path)
