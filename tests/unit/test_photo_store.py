"""Photos are read below allowed roots only, up to the size limit, and stores that do not answer are asked again."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from consumers.photo_store import PhotoStore
from consumers.photos import RejectedError
from schemas.events import Photo, RejectionReason
from schemas.photo_roots import allow, is_below, root_of, submitted_roots
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
        ("https://a.org/photos/%2e%2e/1.jpg", "https://a.org/photos/", False),
        ("https://a.org.evil.net/photos/1.jpg", "https://a.org/", False),
        ("https://a.org@evil.net/1.jpg", "https://a.org/", False),
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


def test_inline_photo_that_is_no_base64_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(RejectedError) as error:
        PhotoStore(settings(tmp_path)).read(Photo(inline="***"))
    assert error.value.reason is RejectionReason.PHOTO_UNREADABLE


class Web(BaseHTTPRequestHandler):
    """Answers with what the path says: a status, or five bytes after as many failures as the path asks for."""

    failures = 0

    def do_GET(self) -> None:
        if self.path.startswith("/flaky") and Web.failures < 2:
            Web.failures += 1
            self.send_error(503)
        elif self.path.startswith(("/photo", "/flaky")):
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"12345")
        else:
            self.send_error(int(self.path.strip("/")))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_photos_on_the_web(tmp_path: Path, web: str) -> None:
    pauses: list[float] = []
    store = PhotoStore(settings(tmp_path, photo_roots=[f"{web}/"], photo_attempts=4), pause=pauses.append)
    assert store.read(Photo(uri=f"{web}/photo.jpg")) == b"12345"
    assert reason_of(store, f"{web}/404") is RejectionReason.PHOTO_NOT_FOUND
    assert pauses == []
    assert store.read(Photo(uri=f"{web}/flaky.jpg")) == b"12345"
    assert pauses == [0.5, 1.0]
    assert reason_of(store, f"{web}/500") is RejectionReason.PHOTO_UNAVAILABLE
    assert pauses == [0.5, 1.0, 0.5, 1.0, 2.0]


def test_a_store_that_is_away_is_unavailable(tmp_path: Path) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=["http://127.0.0.1:9/"], photo_attempts=2), pause=lambda _: None)
    assert reason_of(store, "http://127.0.0.1:9/a.jpg") is RejectionReason.PHOTO_UNAVAILABLE


def test_a_scheme_that_nothing_reads_is_forbidden(tmp_path: Path) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=["carrier-pigeon://coop/"]))
    assert reason_of(store, "carrier-pigeon://coop/a.jpg") is RejectionReason.PHOTO_FORBIDDEN


def test_a_uri_that_fsspec_would_take_for_a_chain_is_forbidden(tmp_path: Path, photo: Path) -> None:
    store = PhotoStore(settings(tmp_path, photo_roots=["https://photos.example.org/"]))
    assert reason_of(store, f"https://photos.example.org/a::{photo.as_uri()}") is RejectionReason.PHOTO_FORBIDDEN
    allow(tmp_path / "data", {root_of(photo.as_uri())})
    odd = photo.rename(photo.with_name("a::b.jpg"))
    assert PhotoStore(settings(tmp_path)).read(Photo(uri=f"file://{odd}")) == b"12345"
