"""Photo file → upright RGB array, decoded no larger than needed. Pure: bytes in, array out."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageOps

from consumers.photos.rejected import RejectedError
from schemas.events.encodings import RejectionReason

# What registration photos come in. Formats beyond these (EPS, PDF …) would run far more code on hostile input.
FORMATS = ("JPEG", "PNG", "WEBP", "HEIF", "GIF", "BMP", "TIFF", "JPEG2000")


# A JPEG's scans, each of which costs a pass over all its pixels, may together pass over so many times `max_pixels`:
# progressive ones have about 10.
_MOST_PASSES = 20
_FLAT = 1_000_000  # pixels: so many are cheap, whatever they are packed into
# Pixels that one byte of a photo stands for: 4 to 20 in a JPEG, 500 in an empty one. Packed tighter, nothing is seen.
_MOST_PIXELS_A_BYTE = 1000
_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])")  # of JPEG: a length follows each but the last

Guard = Callable[[], AbstractContextManager[object]]


class UprightPhoto(Protocol):
    """A photo upright, in 8-bit RGB, unpacked no larger than it is asked for."""

    @property
    def long_side(self) -> int:
        """Pixels along the longer side. Raises RejectedError."""
        ...

    def at_least(self, long_side: int) -> NDArray[np.uint8]:
        """The photo, of shape (height, width, 3), its longer side at least `long_side`, or as long as it is.

        Raises RejectedError.
        """
        ...


class TurnedPhoto:
    """A photo, turned by so many quarters against the clock."""

    def __init__(self, photo: UprightPhoto, turns: int) -> None:
        self._photo, self._turns = photo, turns

    @property
    def long_side(self) -> int:
        """See UprightPhoto."""
        return self._photo.long_side

    def at_least(self, long_side: int) -> NDArray[np.uint8]:
        """See UprightPhoto."""
        return np.ascontiguousarray(np.rot90(self._photo.at_least(long_side), self._turns))


class PhotoFile:
    """A photo as a person sees it: turned upright by its EXIF orientation, in 8-bit RGB.

    Greyscale, palette, CMYK, 16-bit and transparent photos are converted; what is transparent becomes white. A photo
    of more than `max_pixels`, or that would take far more work than its pixels, is refused before it is unpacked.
    Nothing is read before it is asked for. Whatever reads the file does so within a `guard`.
    """

    def __init__(self, data: bytes, max_pixels: int, guard: Guard = nullcontext) -> None:
        self._data = data
        self._guard = guard
        self._max_pixels = max_pixels
        self._long_side: int | None = None
        self._decoded: NDArray[np.uint8] | None = None

    @property
    def long_side(self) -> int:
        """Pixels along the photo's longer side, by the file's header.

        Raises RejectedError: photo_unreadable, or photo_too_large beyond `max_pixels`.
        """
        if self._long_side is None:
            with self._guard(), _rejecting(self._max_pixels), self._open() as image:
                width, height = image.size
            self._check_cost(width * height)
            self._long_side = max(width, height)
        return self._long_side

    def at_least(self, long_side: int) -> NDArray[np.uint8]:
        """The photo, of shape (height, width, 3), its longer side at least `long_side` or as long as it is.

        A JPEG file is unpacked at the smallest of 1, 1/2, 1/4 and 1/8 that is large enough, others as they are. The
        largest so far is kept. Raises RejectedError (photo_unreadable, photo_too_large).
        """
        wanted = min(long_side, self.long_side)
        if self._decoded is None or max(self._decoded.shape[:2]) < wanted:
            with self._guard(), _rejecting(self._max_pixels), self._open() as image:
                image.draft(None, tuple(max(1, wanted * side // self.long_side) for side in image.size))  # type: ignore[arg-type]
                image.load()
                self._decoded = np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
        return self._decoded

    def _check_cost(self, pixels: int) -> None:
        """Raise RejectedError for what unpacks to too much, or takes too much work, by the file's header and scans."""
        if pixels > self._max_pixels:
            raise _too_large(
                f"the photo has {pixels / 1e6:.1f} megapixels; at most {self._max_pixels / 1e6:g} are allowed"
            )
        if pixels > max(_FLAT, _MOST_PIXELS_A_BYTE * len(self._data)):
            raise _too_large(f"the photo claims {pixels / 1e6:.1f} megapixels in {len(self._data)} bytes")
        most = _MOST_PASSES * self._max_pixels // max(pixels, 1)
        if self._data.startswith(b"\xff\xd8") and _has_more_scans(self._data, most):
            raise _too_large(f"the photo is a JPEG of more than {most} scans, each of which costs time")

    def _open(self) -> Image.Image:
        _register_formats()
        return Image.open(io.BytesIO(self._data), formats=FORMATS)


def _register_formats() -> None:
    """Have Pillow know all formats: it loads some only when asked. The second time this does nothing."""
    Image.init()
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener(thumbnails=False, aux_images=False, depth_images=False)


@contextmanager
def _rejecting(max_pixels: int) -> Iterator[None]:
    """Turns what decoders raise into a RejectedError: on hostile bytes they raise anything, and it is not our fault.

    All but MemoryError, which the rest of the process may have caused.
    """
    try:
        yield
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise RejectedError(
            RejectionReason.PHOTO_TOO_LARGE,
            f"the photo has far more than the {max_pixels / 1e6:g} megapixels allowed: send a smaller copy",
        ) from None
    except Exception as error:  # noqa: BLE001 - see above
        raise RejectedError(
            RejectionReason.PHOTO_UNREADABLE,
            f"the file is no photo that can be read ({type(error).__name__}); "
            f"send it again as one of {', '.join(FORMATS)}",
        ) from None


def _too_large(what: str) -> RejectedError:
    return RejectedError(RejectionReason.PHOTO_TOO_LARGE, f"{what}: send a smaller copy, as a plain JPEG")


def _has_more_scans(data: bytes, most: int) -> bool:
    """Whether the first image of a JPEG file (ITU-T T.81, B.1.1) has more scans than that. What follows it is not read.

    Within a segment any bytes may stand, a thumbnail's markers too: segments are stepped over by their length.
    """
    at, scans = 2, 0
    while (marker := _MARKER.search(data, at)) is not None:
        kind, at = marker[1], marker.end()
        if kind == b"\xd9":  # end of image
            return False
        scans += kind == b"\xda"
        if scans > most:
            return True
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return False


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bit(image)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.new("RGBA", image.size, "white")
        image.alpha_composite(layered)
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits: values up to 255 as they are, else as 16-bit."""
    values = np.asarray(image, dtype=np.float32)
    scale = 1.0 if values.max(initial=0.0) <= 255 else 257.0
    return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))
