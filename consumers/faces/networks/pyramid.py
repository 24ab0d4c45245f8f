"""The tiled image pyramid that the CNN detector scans, and the way from it back to the photo.

All levels of a photo lie in one image, each a sixth smaller than the one before, zeros between them; after dlib's
input_rgb_image_pyramid<pyramid_down<6>> (dlib/dnn/input.h, dlib/image_transforms/image_pyramid.h). The network sees
across the gaps, so equal scores need the same image, down to where a level lies on the network's grid of 8 pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import dlib
import numpy as np
from numpy.typing import NDArray

_GAP = 10
_MARGIN = 11
_MIN_HEIGHT = 5
# pyramid_down<6>: a point of a level is at point · 6/5 + 0.3 in the level above it.
_RATE = 5 / 6
_OFFSET = 0.3


class Level(NamedTuple):
    """Where one level of the pyramid lies in the tiled image, in pixels; the first level is the photo."""

    left: int
    top: int
    width: int
    height: int


class Layout(NamedTuple):
    """The levels, from the photo to the smallest, and the size of the tiled image in pixels."""

    levels: list[Level]
    height: int
    width: int


def layout(height: int, width: int) -> Layout:
    """Where dlib's compute_tiled_image_pyramid_details puts the levels of a photo of this size.

    One below the other from the top, as long as the next does not fit beside the last and these take less than
    about half of the height of all; the others at the right edge, from the bottom up, until they meet the photo.
    """
    sizes = _level_sizes(height, width)
    below = sum(size[0] + _GAP for size in sizes[1:]) - _GAP
    in_column, bottom, last_width = 0, 0, 0
    for level_height, level_width in sizes:
        if level_width <= width - last_width - _GAP and 2 * (bottom - height) >= below:
            break
        in_column, bottom, last_width = in_column + 1, bottom + level_height + _GAP, level_width
    bottom -= _GAP
    levels: list[Level] = []
    top = _MARGIN
    for level_height, level_width in sizes[:in_column]:
        levels.append(Level(_MARGIN, top, level_width, level_height))
        top += level_height + _GAP
    top = _MARGIN + bottom
    for level_height, level_width in sizes[in_column:]:
        top -= level_height
        if top < _MARGIN + height:
            break
        levels.append(Level(_MARGIN + width - level_width, top, level_width, level_height))
        top -= _GAP
    return Layout(levels, bottom + 2 * _MARGIN, width + 2 * _MARGIN)


def _level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    sizes = [(height, width)]
    while True:
        height, width = int(_RATE * height), int(_RATE * width)
        if width == 0 or height < _MIN_HEIGHT:
            return sizes
        sizes.append((height, width))


def tile(photos: Sequence[NDArray[np.uint8]], mean: Sequence[float], places: Layout) -> NDArray[np.float32]:
    """The tiled images, float32 (N, 3, height, width), of N photos, uint8 RGB, all of the size of the first level.

    The mean of each colour is subtracted; between the levels are zeros. Each level is resized from the one before.
    """
    tiles = np.zeros((len(photos), 3, places.height, places.width), dtype=np.float32)
    for photo, canvas in zip(photos, tiles, strict=True):
        for colour in range(3):
            level = photo[:, :, colour].astype(np.float32, order="C") - np.float32(mean[colour])
            for left, top, width, height in places.levels:
                if level.shape != (height, width):
                    level = dlib.resize_image(level, height, width)
                canvas[colour, top : top + height, left : left + width] = level
    return tiles


def to_photo(boxes: NDArray[np.float64], levels: Sequence[Level]) -> NDArray[np.float64]:
    """Boxes in the photo's pixels of boxes in the tiled image, both float64 (N, 4): left, top, right, bottom.

    A box belongs to the level nearest to its centre, as in dlib's tiled_pyramid_to_image.
    """
    nearest = _nearest_level((boxes[:, :2] + boxes[:, 2:]) / 2, levels)
    corners = np.array([(level.left, level.top) * 2 for level in levels], dtype=np.float64)
    mapped = boxes - corners[nearest]
    for depth in range(1, len(levels)):
        deeper = nearest >= depth
        mapped[deeper] = mapped[deeper] * (6 / 5) + _OFFSET
    return mapped


def _nearest_level(points: NDArray[np.float64], levels: Sequence[Level]) -> NDArray[np.intp]:
    """The number of the level nearest to each point, (N,) of (N, 2); the first of equally near ones."""
    first = np.array([(level.left, level.top) for level in levels])
    last = first + np.array([(level.width, level.height) for level in levels]) - 1
    beyond = np.maximum(np.maximum(first - points[:, None], points[:, None] - last), 0)
    nearest: NDArray[np.intp] = np.argmin((beyond**2).sum(axis=2), axis=1)
    return nearest


def upsample(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo, uint8 (height, width, 3), as dlib's pyramid_up enlarges it: (2 height + 1, 2 width + 2, 3)."""
    height, width = photo.shape[:2]
    larger: NDArray[np.uint8] = dlib.resize_image(np.ascontiguousarray(photo), 2 * height + 1, 2 * width + 2)
    return larger


def before_upsampling(boxes: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Boxes, float64 (N, 4), in the photo as it was before it was enlarged `times` times: pyramid_down<2>."""
    for _ in range(times):
        boxes = boxes / 2 - np.array([1.25, 0.75, 1.25, 0.75])
    return boxes
