"""Each measure says what its name says; below a minimum a person is told what to do."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from consumers.faces.quality import BELOW_MINIMUM, brightness, check, frontality, sharpness
from consumers.photos.rejected import RejectedError
from schemas.events.encodings import Quality, RejectionReason
from schemas.settings import MinimumQuality

GOOD = Quality(face_pixels=200, detector_score=1.5, sharpness=300, brightness=120, frontality=0.9)
NOISE = np.random.default_rng(3).integers(0, 255, (150, 150, 3), dtype=np.uint8)


def test_a_blurred_face_is_less_sharp() -> None:
    blurred = np.asarray(Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(2)))
    assert sharpness(blurred) < sharpness(NOISE) / 20
    assert sharpness(np.full((150, 150, 3), 90, np.uint8)) == pytest.approx(0, abs=1e-6)


def test_brightness_is_the_mean_grey() -> None:
    assert brightness(np.zeros((150, 150, 3), np.uint8)) == 0
    assert brightness(np.full((150, 150, 3), 255, np.uint8)) == pytest.approx(255, abs=0.01)


def landmarks(nose: tuple[float, float], turn: float = 0.0) -> NDArray[np.float64]:
    points = np.array([(15, 0), (45, 0), nose], dtype=np.float64)
    cos, sin = np.cos(turn), np.sin(turn)
    turned: NDArray[np.float64] = points @ np.array([[cos, sin], [-sin, cos]])
    return turned


@pytest.mark.parametrize(("nose", "expected"), [((30, 40), 1.0), ((22.5, 40), 0.5), ((15, 40), 0.0), ((60, 40), 0.0)])
@pytest.mark.parametrize("turn", [0.0, 0.5, 3.0])
def test_frontality_is_where_the_nose_is_between_the_eyes(
    nose: tuple[float, float], expected: float, turn: float
) -> None:
    points = landmarks(nose, turn)
    assert frontality(points[:2], points[2]) == pytest.approx(expected, abs=1e-9)


def test_landmarks_in_one_point_are_no_error() -> None:
    assert 0 <= frontality(np.zeros((2, 2)), np.zeros(2)) <= 1


@pytest.mark.parametrize(
    ("minimum", "reason", "says"),
    [
        ({"face_pixels": 201}, RejectionReason.FACE_TOO_SMALL, "200 pixels wide; at least 201 are needed"),
        ({"detector_score": 2}, RejectionReason.FACE_UNCERTAIN, "1.50, and 2.00 is needed"),
        ({"sharpness": 301}, RejectionReason.FACE_BLURRED, "300, at least 301"),
        ({"brightness": 121}, RejectionReason.FACE_TOO_DARK, "120 of 255, at least 121"),
        ({"frontality": 0.95}, RejectionReason.FACE_TURNED, "0.90 of 1 is frontal, at least 0.95"),
    ],
)
def test_each_minimum_has_its_own_reason_that_says_what_to_do(
    minimum: dict[str, float], reason: RejectionReason, says: str
) -> None:
    with pytest.raises(RejectedError, match=says) as error:
        check(GOOD, MinimumQuality(**minimum))
    assert error.value.reason is reason


def test_a_face_at_its_minimum_passes() -> None:
    check(GOOD, MinimumQuality(**GOOD.model_dump()))
    check(GOOD, MinimumQuality())


def test_every_measure_has_a_minimum_and_a_reason_of_its_own() -> None:
    """A measure that is forgotten in one of the lists would be a setting without effect, or a face never rejected."""
    assert set(MinimumQuality.model_fields) == set(Quality.model_fields)
    assert set(BELOW_MINIMUM) == set(Quality.model_fields)
    assert len({reason for reason, _ in BELOW_MINIMUM.values()}) == len(BELOW_MINIMUM)
