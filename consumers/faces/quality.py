"""The measures of a face's quality, and the rejections of faces that are not good enough to be compared. Pure."""

import numpy as np
from numpy.typing import NDArray

from consumers.photos.rejected import RejectedError
from schemas.events.encodings import Quality, RejectionReason
from schemas.settings import MinimumQuality

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

BELOW_MINIMUM = {
    "face_pixels": (
        RejectionReason.FACE_TOO_SMALL,
        "the face is {is_:.0f} pixels wide; at least {needed:.0f} are needed: go nearer, or send a larger copy",
    ),
    "detector_score": (
        RejectionReason.FACE_UNCERTAIN,
        "this may be no face: the detector is sure by {is_:.2f}, and {needed:.2f} is needed: take the photo again from "
        "the front, in good light",
    ),
    "brightness": (
        RejectionReason.FACE_TOO_DARK,
        "the face is dark: its brightness is {is_:.0f} of 255, at least {needed:.0f} is needed: let light fall on it "
        "from the front",
    ),
    "sharpness": (
        RejectionReason.FACE_BLURRED,
        "the face is blurred: its sharpness is {is_:.0f}, at least {needed:.0f} is needed: hold the camera still, and "
        "focus on the face",
    ),
    "frontality": (
        RejectionReason.FACE_TURNED,
        "the head is turned to the side: {is_:.2f} of 1 is frontal, at least {needed:.2f} is needed: have the person "
        "look into the camera",
    ),
}


def sharpness(chip: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of an aligned face, uint8 RGB of shape (side, side, 3), in squared grey levels.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (ICPR 2000).
    """
    grey = chip @ _GREY
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var())


def brightness(chip: NDArray[np.uint8]) -> float:
    """Mean grey of an aligned face, uint8 RGB of shape (side, side, 3): 0 to 255."""
    return float((chip @ _GREY).mean())


def frontality(eyes: NDArray[np.float64], nose: NDArray[np.float64]) -> float:
    """How frontal a face is by the centres of its eyes, (2, 2), and its nose, (2,): the base of it or the tip.

    The nose is projected onto the line through the eyes. 1: midway between them; 0: below one of them, or outside.
    """
    across = eyes[1] - eyes[0]
    along = float((nose - eyes[0]) @ across / max(across @ across, 1e-9))
    return max(0.0, 1.0 - 2.0 * abs(along - 0.5))


def check(quality: Quality, minimum: MinimumQuality) -> None:
    """Check each measure. Raises RejectedError, whose text says what to do, for the first that is below its minimum."""
    for name, (reason, text) in BELOW_MINIMUM.items():
        is_, needed = getattr(quality, name), getattr(minimum, name)
        if needed is not None and is_ < needed:
            raise RejectedError(reason, text.format(is_=is_, needed=needed))
