"""Photo file → upright RGB array. Pure: bytes in, array out."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from schemas.events import RejectionReason

# What registration photos come in. Formats beyond these (EPS, PDF …) would run far more code on hostile input.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000")


class RejectedError(Exception):
    """A photo cannot be encoded. `reason` is for programs, the text for people: what is wrong, what to do."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode_photo(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """The photo as a person sees it: turned upright by its EXIF orientation, in 8-bit RGB.

    Greyscale, palette, CMYK, 16-bit and transparent photos are converted; what is transparent becomes white.

    Returns an array of shape (height, width, 3). Raises RejectedError (photo_unreadable, photo_too_large);
    a photo of more than `max_pixels` is refused before it is unpacked.
    """
    Image.init()  # or formats that Pillow has not met yet are unknown to it; the second time it does nothing
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(width * height, max_pixels)
            image.load()
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except RejectedError:
        raise
    except Image.DecompressionBombError:
        raise RejectedError(
            RejectionReason.PHOTO_TOO_LARGE,
            f"the photo has far more than the {max_pixels / 1e6:g} megapixels allowed; send a smaller copy",
        ) from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on hostile bytes, and none of it is our fault
        raise RejectedError(
            RejectionReason.PHOTO_UNREADABLE,
            f"the file is no photo that can be read ({type(error).__name__}); "
            f"send it again as one of {', '.join(FORMATS)}",
        ) from None


def _too_large(pixels: int, max_pixels: int) -> RejectedError:
    return RejectedError(
        RejectionReason.PHOTO_TOO_LARGE,
        f"the photo has {pixels / 1e6:.1f} megapixels; at most {max_pixels / 1e6:g} are allowed: send a smaller copy",
    )


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
    values = np.asarray(image, dtype=np.float64)
    scale = 1.0 if values.max(initial=0.0) <= 255 else 257.0
    return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))


def shrink(photo: NDArray[np.uint8], max_pixels: int) -> tuple[NDArray[np.uint8], float]:
    """A copy of at most `max_pixels`, and by what factor its sides are shorter (1.0: the photo itself)."""
    height, width = photo.shape[:2]
    if height * width <= max_pixels:
        return photo, 1.0
    factor = (max_pixels / (height * width)) ** 0.5
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = Image.fromarray(photo).resize(size, Image.Resampling.BOX)
    return np.asarray(small), factor
