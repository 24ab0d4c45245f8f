"""Photo files of every kind → upright RGB, or a rejection that says what to do."""

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def progressive(side: int, scans: int) -> bytes:
    """A JPEG whose last scan stands there so many times more: each costs a pass over all pixels, and few bytes."""
    data = file_of(Image.new("L", (side, side), 128), "JPEG", progressive=True, quality=50)
    begin, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[begin:end] * scans + b"\xff\xd9"


def reason_for(data: bytes, max_pixels: int = PIXELS) -> RejectionReason:
    with pytest.raises(RejectedError) as error:
        PhotoFile(data, max_pixels).at_least(FULL)
    return error.value.reason


def test_a_jpeg_of_many_scans_is_refused_before_it_is_unpacked() -> None:
    began = time.process_time()
    assert reason_for(progressive(7000, 300), 50_000_000) is RejectionReason.PHOTO_TOO_LARGE
    assert time.process_time() - began < 4, "most of it to make the file"


def test_scans_are_counted_behind_what_hides_them() -> None:
    """Segments are stepped over by their length; those markers that have none are not."""
    data = progressive(1000, 300)
    second = data.find(b"\xff\xda", data.find(b"\xff\xda") + 2)
    assert reason_for(data[:second] + b"\xff\x01\xff\xff" + data[second:]) is RejectionReason.PHOTO_TOO_LARGE


def test_an_honest_progressive_jpeg_is_read_whatever_stands_in_and_behind_it() -> None:
    """Thumbnails in its segments, a film behind its end: their bytes are no scans."""
    data = file_of(scene(990, 1000), "JPEG", progressive=True, quality=95)
    comment = b"\xff\xda\x00\x02" * 1000
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    assert decoded(data[:2] + segment + data[2:] + comment * 100).shape == (1000, 990, 3)
    small = progressive(60, 300)
    assert decoded(small).shape == (60, 60, 3), "of few pixels, many scans cost little"


@pytest.mark.parametrize("image_format", ["JPEG2000", "WEBP", "PNG"])
def test_what_claims_more_pixels_than_its_bytes_can_show_is_refused(image_format: str) -> None:
    flat = file_of(Image.new("1" if image_format == "PNG" else "RGB", (7000, 7000)), image_format, lossless=True)
    assert reason_for(flat, 50_000_000) is RejectionReason.PHOTO_TOO_LARGE


def test_whatever_reads_the_file_does_so_within_the_guard() -> None:
    entered: list[None] = []

    @contextmanager
    def guard() -> Iterator[None]:
        entered.append(None)
        yield

    photo = PhotoFile(file_of(scene(800, 600), "JPEG"), PIXELS, guard)
    assert photo.long_side == 800
    assert len(entered) == 1
    photo.at_least(100)
    photo.at_least(400)
    assert len(entered) == 3
