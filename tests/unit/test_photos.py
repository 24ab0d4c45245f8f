"""Photo files of every kind → upright RGB, or a rejection that says what to do."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray
from PIL import Image

from consumers.photos.file import FORMATS, PhotoFile
from consumers.photos.rejected import RejectedError
from schemas.events.encodings import RejectionReason

PIXELS = 1_000_000
FULL = 10**6


def decoded(data: bytes) -> NDArray[np.uint8]:
    return PhotoFile(data, PIXELS).at_least(FULL)


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """Dark on the left, light on the right, with a red corner at the top left."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 200
    pixels[: height // 4, : width // 4] = (220, 10, 10)
    return Image.fromarray(pixels)


def file_of(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_is_read(image_format: str) -> None:
    photo = decoded(file_of(scene(), image_format))
    assert photo.shape == (40, 60, 3)
    assert photo.dtype == np.uint8
    assert photo[20, 45].mean() > 150
    assert photo[30, 5].mean() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene().transpose(turn[orientation]) if orientation > 1 else scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = decoded(file_of(stored, "JPEG", exif=exif, quality=95))
    assert photo.shape == (40, 60, 3)
    assert photo[2, 2, 0] > 150 > photo[2, 2, 1]


def _sixteen_bit() -> Image.Image:
    grey = np.asarray(scene().convert("L"), dtype=np.uint16) * 257
    return Image.fromarray(grey)


@pytest.mark.parametrize(
    ("make", "image_format"),
    [
        (lambda: scene().convert("L"), "PNG"),
        (lambda: scene().convert("1"), "PNG"),
        (lambda: scene().convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        (lambda: scene().convert("P", palette=Image.Palette.ADAPTIVE), "GIF"),
        (lambda: scene().convert("LA"), "PNG"),
        (lambda: scene().convert("RGBA"), "PNG"),
        (lambda: scene().convert("CMYK"), "JPEG"),
        (lambda: scene().convert("CMYK"), "TIFF"),
        (lambda: scene().convert("I"), "TIFF"),
        (lambda: scene().convert("F"), "TIFF"),
        (_sixteen_bit, "PNG"),
        (_sixteen_bit, "TIFF"),
    ],
    ids=[
        *("grey", "bilevel", "palette", "gif", "grey+alpha", "alpha"),
        *("cmyk", "cmyk-tiff", "32-bit", "float", "16-bit", "16-bit-tiff"),
    ],
)
def test_every_colour_mode_becomes_rgb(make: Callable[[], Image.Image], image_format: str) -> None:
    photo = decoded(file_of(make(), image_format))
    assert photo.shape == (40, 60, 3)
    assert abs(photo[20, 45].mean() - 200) < 60
    assert photo[30, 5].mean() < 30


def test_what_is_transparent_becomes_white() -> None:
    image = scene().convert("RGBA")
    image.putalpha(0)
    assert (decoded(file_of(image)) == 255).all()


def _png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        file_of(scene())[:60],
        file_of(scene(400, 400), "JPEG")[:-3000],
        _png_claiming(0, 0),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"II*\x00" + b"\xff" * 40,
    ],
    ids=["empty", "text", "png cut", "jpeg cut", "0 x 0", "postscript", "broken tiff"],
)
def test_no_photo_is_unreadable(data: bytes) -> None:
    with pytest.raises(RejectedError) as error:
        decoded(data)
    assert error.value.reason is RejectionReason.PHOTO_UNREADABLE
    assert "send it again" in str(error.value)


@pytest.mark.parametrize("size", [(2000, 2000), (60_000, 60_000)], ids=["over the limit", "bomb"])
def test_too_many_pixels_are_refused_before_they_are_unpacked(size: tuple[int, int]) -> None:
    with pytest.raises(RejectedError) as error:
        decoded(_png_claiming(*size))
    assert error.value.reason is RejectionReason.PHOTO_TOO_LARGE


@pytest.mark.parametrize(("wanted", "is_"), [(100, 100), (101, 200), (200, 200), (400, 400), (401, 800), (9999, 800)])
def test_a_jpeg_is_unpacked_no_larger_than_needed(wanted: int, is_: int) -> None:
    data = file_of(scene(800, 600), "JPEG", quality=95)
    photo = PhotoFile(data, PIXELS).at_least(wanted)
    assert photo.shape == (is_ * 3 // 4, is_, 3)
    assert photo[2, 2, 0] > 150 > photo[2, 2, 1]


def test_a_larger_copy_is_unpacked_when_one_is_needed_and_a_smaller_one_is_not() -> None:
    photo = PhotoFile(file_of(scene(800, 600), "JPEG"), PIXELS)
    assert photo.long_side == 800
    assert photo.at_least(100).shape == (75, 100, 3)
    large = photo.at_least(400)
    assert large.shape == (300, 400, 3)
    assert photo.at_least(100) is large


def test_a_photo_a_pixel_wide_is_a_photo() -> None:
    assert PhotoFile(file_of(scene(1, 2000), "JPEG"), PIXELS).at_least(100).shape[2] == 3
