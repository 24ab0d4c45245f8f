"""A face turned upright: a similarity transform brings five landmarks to where a network wants them. Pure."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SMALLEST = 1e-9  # pixels of the square that one of the photo becomes
Points = NDArray[np.float64]
"""Five landmarks as (x, y), of shape (5, 2)."""


def similarity(source: Points, target: Points) -> NDArray[np.float64]:
    """The turn, scale and shift that bring `source` nearest to `target`, by least squares: (2, 3), for (x, y, 1).

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (IEEE TPAMI 1991).
    """
    from_mean, to_mean = source.mean(axis=0), target.mean(axis=0)
    from_, to = source - from_mean, target - to_mean
    u, d, vt = np.linalg.svd(to.T @ from_ / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])  # turned, never mirrored
    turn = u @ np.diag(signs) @ vt
    spread = (from_**2).sum() / len(source)
    scaled = turn * ((d * signs).sum() / max(spread, 1e-12))
    return np.column_stack([scaled, to_mean - scaled @ from_mean])


def warped(pixels: NDArray[np.uint8], transform: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """The square of `side` pixels that a transform (2, 3) makes of a photo, RGB of shape (height, width, 3).

    Interpolated between four pixels; what lies outside of the photo is black.
    """
    turn, shift = transform[:, :2], transform[:, 2]
    if abs(np.linalg.det(turn)) < _SMALLEST:  # all landmarks in one place
        return np.zeros((side, side, 3), np.uint8)
    back = np.linalg.inv(turn)
    # Pillow counts from the corner of a pixel, landmarks from its centre.
    offset = back @ (np.array([0.0, 0.0]) - shift) + 0.5 - back @ np.array([0.5, 0.5])
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], dtype=np.float64) @ back.T + offset
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, pixels.shape[1::-1])
    if (high <= low).any():
        return np.zeros((side, side, 3), np.uint8)
    part = Image.fromarray(pixels[low[1] : high[1], low[0] : high[0]])
    (a, b), (c, d) = back
    x, y = offset - low
    return np.asarray(
        part.transform((side, side), Image.Transform.AFFINE, (a, b, x, c, d, y), Image.Resampling.BILINEAR)
    )
