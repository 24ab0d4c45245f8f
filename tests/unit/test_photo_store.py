"""Photos are read below allowed roots only, up to the size limit, and stores that do not answer are asked again."""

import base64
import ftplib
import os
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from consumers.photos.rejected import RejectedError
from consumers.photos.store import PhotoStore
from runtime.photo_roots import allow, is_below, root_of, submitted_roots
from schemas.events.encodings import RejectionReason
from schemas.events.registrations import Photo
from schemas.settings import Settings


def settings(tmp_path: Path, **own: object) -> Settings:
    return Settings(data_folder=tmp_path / "data", **own)  # type: ignore[arg-type]


def reason_of(store: PhotoStore, uri: str) -> RejectionReason:
    with pytest.raises(RejectedError) as error:
        store.read(Photo(uri=uri))
    return error.value.reason


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "a photo.jpg"
    path.parent.mkdir()
    path.write_bytes(b"12345")
    return path


def test_what_was_submitted_is_read(tmp_path: Path, photo: Path) -> None:
    store = PhotoStore(settings(tmp_path))
    assert reason_of(store, photo.as_uri()) is RejectionReason.PHOTO_FORBIDDEN
    allow(tmp_path / "data", {root_of(photo.as_uri())})
    assert store.read(Photo(uri=photo.as_uri())) == b"12345"
    assert reason_of(store, (photo.parent / "none.jpg").as_uri()) is RejectionReason.PHOTO_NOT_FOUND
    assert reason_of(store, photo.parent.as_uri()) is RejectionReason.PHOTO_NOT_FOUND


def test_named_roots_replace_what_was_submitted(tmp_path: Path, photo: Path) -> None:
    allow(tmp_path / "data", {root_of(photo.as_uri())})
    store = PhotoStore(settings(tmp_path, photo_roots=["https://photos.example.org/"]))
    assert reason_of(store, photo.as_uri()) is RejectionReason.PHOTO_FORBIDDEN


@pytest.mark.parametrize(
    ("uri", "root", "below"),
    [
        ("file:///srv/photos/a.jpg", "file:///srv/photos/", True),
        ("file:///srv/photos/../secret.jpg", "file:///srv/photos/", False),
        ("file:///srv/photos/%2e%2e/secret.jpg", "file:///srv/photos/", False),
        ("file:///srv/photos-2/a.jpg", "file:///srv/photos", False),
        ("https://a.org/photos/1.jpg", "https://a.org/photos/", True),
        ("https://a.org/photos/../1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/%2e%2e/1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/%252e%252e/1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/..%2f1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/..\\1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/..%5c1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/..;a=b/1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/.\t./1.jpg", "https://a.org/photos/", False),
        ("https://a.org/photos/..hidden/a..b.jpg", "https://a.org/photos/", True),
        ("https://a.org/photos-2/1.jpg", "https://a.org/photos", False),
        ("https://a.org/photos%2f1.jpg", "https://a.org/photos/", False),
        ("https://a.org//photos/1.jpg", "https://a.org/photos/", False),
        ("https://a.org/o/photos%2f1.jpg", "https://a.org/o/", True),
        ("https://a.org/a%20b/1.jpg", "https://a.org/a b/", True),
        ("https://A.org:443/1.jpg", "https://a.org/", True),
        ("https://a.org:8443/1.jpg", "https://a.org/", False),
        ("https://b\u00fccher.example/1.jpg", "https://xn--bcher-kva.example/", True),
        ("https://a.org.evil.net/photos/1.jpg", "https://a.org/", False),
        ("https://a.org@evil.net/1.jpg", "https://a.org/", False),
        ("https://a.org\\@evil.net/1.jpg", "https://a.org/", False),
        ("https://evil.net#@a.org/1.jpg", "https://a.org/", False),
        ("https://a.org:port/1.jpg", "https://a.org/", False),
        ("https:/a.org/1.jpg", "https://a.org/", False),
        ("s3://photos/camp/1.jpg", "s3://photos/camp/", True),
        ("s3://photos-2/camp/1.jpg", "s3://photos/", False),
        ("s3://photos/camp/../1.jpg", "s3://photos/camp/", False),
        ("http://a.org/1.jpg", "https://a.org/", False),
        ("file:///srv/photos/%00", "file:///srv/photos/", False),
        ("a.jpg", "file:///srv/photos/", False),
    ],
)
def test_roots_cannot_be_left(uri: str, root: str, below: bool) -> None:
    assert is_below(uri, root) is below


def test_links_out_of_a_root_are_not_followed(tmp_path: Path, photo: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (photo.parent / "link.jpg").symlink_to(secret)
    allow(tmp_path / "data", {root_of(photo.as_uri())})
    link = photo.parent / "link.jpg"
    assert reason_of(PhotoStore(settings(tmp_path)), f"file://{link}") is RejectionReason.PHOTO_FORBIDDEN


def test_a_link_that_is_put_there_after_the_check_is_not_followed(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store = PhotoStore(settings(tmp_path, photo_roots=[photo.parent.as_uri()]))

    def check_then_link(uri: str) -> None:
        monkeypatch.undo()
        store._check_allowed(uri)
        photo.unlink()
        photo.symlink_to(secret)

    monkeypatch.setattr(store, "_check_allowed", check_then_link)
    assert reason_of(store, photo.as_uri()) is RejectionReason.PHOTO_FORBIDDEN


def test_roots_are_added_once(tmp_path: Path) -> None:
    for _ in range(2):
        allow(tmp_path, {"file:///b/", "file:///a/"})
    assert submitted_roots(tmp_path) == ["file:///a/", "file:///b/"]


def test_size_limit_holds_for_files_and_inline_photos(tmp_path: Path, photo: Path) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=[photo.parent.as_uri()], max_photo_bytes=4))
    assert reason_of(store, photo.as_uri()) is RejectionReason.PHOTO_TOO_LARGE
    with pytest.raises(RejectedError) as error:
        store.read(Photo(inline=base64.b64encode(b"12345").decode()))
    assert error.value.reason is RejectionReason.PHOTO_TOO_LARGE


@pytest.mark.parametrize("text", ["***", "QUJ", "äöü="])
def test_inline_photo_that_is_no_base64_is_unreadable(tmp_path: Path, text: str) -> None:
    with pytest.raises(RejectedError) as error:
        PhotoStore(settings(tmp_path)).read(Photo(inline=text))
    assert error.value.reason is RejectionReason.PHOTO_UNREADABLE


def test_base64_may_have_line_breaks(tmp_path: Path) -> None:
    assert PhotoStore(settings(tmp_path)).read(Photo(inline="MTIz\r\nNDU=\n")) == b"12345"


@pytest.mark.parametrize("uri", ["http://[::1", "x://[::", "http://a]::b/", "//[", "http://[v1.x]/", "file://[/a.jpg"])
def test_what_is_no_uri_is_rejected(tmp_path: Path, uri: str) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=["file:///", "http://a/"]))
    assert reason_of(store, uri) is RejectionReason.PHOTO_FORBIDDEN


def test_a_named_pipe_is_no_photo_and_is_not_waited_for(tmp_path: Path, photo: Path) -> None:
    pipe = photo.with_name("pipe.jpg")
    os.mkfifo(pipe)
    store = PhotoStore(settings(tmp_path, photo_roots=[photo.parent.as_uri()]))
    assert reason_of(store, pipe.as_uri()) is RejectionReason.PHOTO_NOT_FOUND


def test_whatever_the_library_of_a_store_raises_is_a_store_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here one of ftplib's, which are no OSError."""

    def failing(*_: object, **__: object) -> None:
        raise ftplib.error_perm("550 for the test")

    monkeypatch.setattr(MemoryFileSystem, "open", failing)
    pauses: list[float] = []
    store = PhotoStore(settings(tmp_path, photo_roots=["memory://photos/"], photo_attempts=3), pauses.append)
    assert reason_of(store, "memory://photos/a.jpg") is RejectionReason.PHOTO_UNAVAILABLE
    assert pauses == [0.5, 1.0]


def test_a_scheme_that_nothing_reads_is_forbidden(tmp_path: Path) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=["carrier-pigeon://coop/"]))
    assert reason_of(store, "carrier-pigeon://coop/a.jpg") is RejectionReason.PHOTO_FORBIDDEN


def test_a_uri_that_fsspec_would_take_for_a_chain_is_forbidden(tmp_path: Path, photo: Path) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=["memory://photos/"]))
    assert reason_of(store, f"memory://photos/a::{photo.as_uri()}") is RejectionReason.PHOTO_FORBIDDEN
    allow(tmp_path / "data", {root_of(photo.as_uri())})
    odd = photo.rename(photo.with_name("a::b.jpg"))
    assert PhotoStore(settings(tmp_path)).read(Photo(uri=f"file://{odd}")) == b"12345"
