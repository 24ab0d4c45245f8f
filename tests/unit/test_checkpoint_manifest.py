"""A checkpoint's manifest says what it said when it was written, or that it is not to be trusted."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from streams.checkpoint.manifest import AbsentEntry, Blob, BlobPart, Manifest, ScopeEntry, SegmentEntry, UnusableError
from streams.gallery.segment import IndexQuality

QUALITY = IndexQuality(m=16, ef_construction=100, ef=32, recall=0.9991, sample_pairs=4321)


def blob(name: str, *parts: str) -> Blob:
    """Of two chunks each part."""
    return Blob(id=name, parts={part: BlobPart(checksums=("a", "b")) for part in parts})


def manifest(age: timedelta = timedelta()) -> Manifest:
    return Manifest(
        offset=2**40,
        made_at=datetime.now(UTC) - age,
        scopes=(
            ScopeEntry(
                collection="名前",
                encoder="e",
                segments=(
                    SegmentEntry(blob=blob("s1", "id_table", "index"), rows=7, quality=QUALITY),
                    SegmentEntry(blob=blob("s2", "id_table"), rows=8, quality=QUALITY),
                ),
                rest=blob("r", "rest"),
            ),
        ),
        absent=(AbsentEntry(collection="c", blob=blob("a", "absent")),),
    )


def test_what_is_read_is_what_was_written() -> None:
    written = manifest()
    assert Manifest.from_bytes(written.to_bytes()) == written


def test_every_chunk_of_everything_is_named_once() -> None:
    expected = [
        f"{part}:{number}" for part in ("s1:id_table", "s1:index", "s2:id_table", "r:rest") for number in (0, 1)
    ]
    assert manifest().chunks() == [*expected, "a:absent:0", "a:absent:1"]


@pytest.mark.parametrize("at", [0, 63, 64, 65, 100, -1])
def test_one_that_was_damaged_is_found_out(at: int) -> None:
    value = bytearray(manifest().to_bytes())
    value[at] ^= 1
    with pytest.raises(UnusableError, match="its manifest is corrupt"):
        Manifest.from_bytes(bytes(value))


@pytest.mark.parametrize("value", [b"", b"\n", b"garbage", b"{}"])
def test_what_is_no_manifest_is_found_out(value: bytes) -> None:
    with pytest.raises(UnusableError, match="its manifest is corrupt"):
        Manifest.from_bytes(value)


def test_one_that_was_cut_is_found_out() -> None:
    value = manifest().to_bytes()
    for length in (10, 64, 65, len(value) - 1):
        with pytest.raises(UnusableError, match="its manifest is corrupt"):
            Manifest.from_bytes(value[:length])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format":1', b'"format":0'),
        (b'"format":1', b'"format":2'),
        (b'"offset":', b'"position":'),
        (b'"format":1', b'"format":1,"more":0'),
        (b'"ef":32,', b""),
    ],
)
def test_one_of_another_format_is_found_out(old: bytes, new: bytes) -> None:
    text = manifest().to_bytes().partition(b"\n")[2]
    assert old in text
    text = text.replace(old, new)
    with pytest.raises(UnusableError, match="its manifest is of another format"):
        Manifest.from_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def test_one_is_too_old_when_an_erasure_may_be_gone_from_the_log() -> None:
    longest = timedelta(days=14)
    manifest(timedelta(days=13, hours=23)).check_age(longest)
    with pytest.raises(UnusableError, match="it is 15 days old, and Kafka keeps tombstones for 14"):
        manifest(timedelta(days=15)).check_age(longest)
    with pytest.raises(UnusableError):
        manifest(timedelta(days=14, minutes=1)).check_age(longest)
