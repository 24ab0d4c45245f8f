"""Photos on the web: neither a redirect nor a name's address leads out of what is allowed."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote

import pytest

from consumers.photos.addresses import may_be_asked
from consumers.photos.rejected import RejectedError
from consumers.photos.store import PhotoStore
from schemas.events.encodings import RejectionReason
from schemas.events.registrations import Photo
from schemas.settings import Settings

LOOPBACK = ["127.0.0.1/32"]


class Store(ThreadingHTTPServer):
    """A photo store that does what the path says, and keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[str] = []
        self.root = f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    """/503, /404 …: that status. /to?URI: a redirect there. /loop: to itself. /flaky…: fails twice. Else a photo."""

    server: Store

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith(("/to?", "/loop")):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/to?")))
            self.end_headers()
        elif self.path.strip("/").isdigit():
            self.send_error(int(self.path.strip("/")))
        elif self.path.startswith("/flaky") and self.server.asked.count(self.path) <= 2:
            self.send_error(503)
        else:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"12345")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def start_store() -> Iterator[Callable[[], Store]]:
    running: list[Store] = []

    def start() -> Store:
        running.append(Store())
        threading.Thread(target=running[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return running[-1]

    yield start
    for store in running:
        store.shutdown()
        store.server_close()


@pytest.fixture
def store(start_store: Callable[[], Store]) -> Store:
    return start_store()


class Reader:
    """Reads photos below roots; `pauses` are those before it asked again."""

    def __init__(self, *roots: str, private_networks: list[str] | None = None, attempts: int = 2) -> None:
        self.pauses: list[float] = []
        settings = Settings(
            data_folder=Path("/nonexistent"),
            photo_roots=list(roots),
            photo_private_networks=LOOPBACK if private_networks is None else private_networks,
            photo_attempts=attempts,
        )
        self._store = PhotoStore(settings, self.pauses.append)

    def read(self, uri: str) -> bytes:
        return self._store.read(Photo(uri=uri))

    def rejection(self, uri: str) -> tuple[RejectionReason, str]:
        with pytest.raises(RejectedError) as error:
            self.read(uri)
        return error.value.reason, str(error.value)

    def rule(self, uri: str) -> str:
        """Why a photo is forbidden, after one look at it."""
        reason, detail = self.rejection(uri)
        assert reason is RejectionReason.PHOTO_FORBIDDEN, (reason, detail)
        assert self.pauses == [], "what is forbidden is not asked for again"
        assert "://" not in detail, "a rejection tells no address"
        return detail


def test_photos_on_the_web(store: Store) -> None:
    reader = Reader(store.root, attempts=4)
    assert reader.read(f"{store.root}photo.jpg") == b"12345"
    assert reader.rejection(f"{store.root}404")[0] is RejectionReason.PHOTO_NOT_FOUND
    assert reader.pauses == []
    assert reader.read(f"{store.root}flaky.jpg") == b"12345"
    assert reader.pauses == [0.5, 1.0]
    assert reader.rejection(f"{store.root}500")[0] is RejectionReason.PHOTO_UNAVAILABLE
    assert reader.pauses == [0.5, 1.0, 0.5, 1.0, 2.0]


def test_a_store_that_is_away_is_unavailable() -> None:
    reason, _ = Reader("http://127.0.0.1:9/").rejection("http://127.0.0.1:9/a.jpg")
    assert reason is RejectionReason.PHOTO_UNAVAILABLE


def test_redirects_within_the_roots_are_followed(store: Store, start_store: Callable[[], Store]) -> None:
    other = start_store()
    reader = Reader(store.root, f"{other.root}photos/")
    assert reader.read(f"{store.root}to?/a.jpg") == b"12345"
    assert reader.read(f"{store.root}to?{other.root}photos/b.jpg") == b"12345"
    assert (store.asked[1], other.asked) == ("/a.jpg", ["/photos/b.jpg"])


def test_a_redirect_out_of_the_roots_is_not_followed(store: Store, start_store: Callable[[], Store]) -> None:
    other = start_store()
    reader = Reader(f"{store.root}to", f"{store.root}photos/")
    away = (
        f"{other.root}photos/a.jpg",
        f"//127.0.0.1:{other.server_port}/photos/a.jpg",
        f"{store.root}secret",
        "/photos/%2E%2E/secret",
        "/photos/../secret",
    )
    for number, target in enumerate(away, start=1):
        assert "redirects to a URI outside the allowed roots" in reader.rule(f"{store.root}to?{target}")
        assert len(store.asked) == number, "asked for the redirect alone"
    second = f"{store.root}to?{store.root}to?{other.root}a.jpg"
    assert "redirects to a URI outside the allowed roots" in reader.rule(second)
    assert other.asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a.jpg", "http://[::1/a.jpg"])
def test_a_redirect_to_what_is_not_the_web_is_not_followed(store: Store, target: str) -> None:
    assert "is no valid URI" in Reader(store.root).rule(f"{store.root}to?{target}")
    assert len(store.asked) == 1


def test_a_loop_of_redirects_is_left(store: Store) -> None:
    assert "redirects more than 5 times" in Reader(store.root).rule(f"{store.root}loop")
    assert len(store.asked) == 6


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.100.100.200", False),  # shared; the metadata of a cloud
        ("169.254.169.254", False),  # link-local; the metadata of most clouds
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("fd00:ec2::254", False),  # unique local; the metadata of a cloud
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("::127.0.0.1", False),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::a9fe:a9fe", False),  # NAT64 of 169.254.169.254
        ("2001:db8::1", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert may_be_asked(address, []) is public


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.20.1.1", True),
        ("::ffff:10.20.1.1", True),
        ("10.21.1.1", False),
        ("fd00:20::1", True),
        ("fd00:21::1", False),
    ],
)
def test_private_networks_are_those_that_the_operator_names(address: str, allowed: bool) -> None:
    assert may_be_asked(address, [ip_network("10.20.0.0/16"), ip_network("fd00:20::/64")]) is allowed


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "0.0.0.0", "0x7f000001", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "①②⑦.⓪.⓪.①"]
)
def test_a_root_at_a_private_address_is_not_read(store: Store, host: str) -> None:
    root = f"http://{host}:{store.server_port}/"
    assert "address is not a public one" in Reader(root, private_networks=[]).rule(f"{root}a.jpg")
    assert store.asked == []


@pytest.mark.parametrize("host", ["2130706433", "017700000001", "0177.0.0.1", "127.1"])
def test_addresses_in_odd_notations_are_not_read(store: Store, host: str) -> None:
    root = f"http://{host}:{store.server_port}/"
    assert "is no valid URI" in Reader(root).rule(f"{root}a.jpg")
    assert store.asked == []


Resolve = Callable[..., list[tuple[object, ...]]]


def resolving_to(*addresses: str) -> Resolve:
    """A name service that gives other addresses the second time, and the last ones from then on."""
    answers = [address.split() for address in addresses]

    def getaddrinfo(_host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    return getaddrinfo


def test_a_name_of_a_private_address_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    root = f"http://photos.example.org:{store.server_port}/"
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1"))
    assert "address is not a public one" in Reader(root, private_networks=[]).rule(f"{root}a.jpg")
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1 127.0.0.2"))
    assert "address is not a public one" in Reader(root, private_networks=[]).rule(f"{root}a.jpg")
    assert store.asked == []
    assert Reader(root).read(f"{root}a.jpg") == b"12345"


def test_a_name_that_changes_what_it_stands_for_gains_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    root = f"http://photos.example.org:{store.server_port}/"
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.9", "127.0.0.1"))
    reader = Reader(root, private_networks=["127.0.0.9/32"])
    with pytest.raises(RejectedError):
        reader.read(f"{root}a.jpg")
    assert store.asked == []


def test_a_redirect_to_a_private_address_is_not_followed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to one below a root: the root's name stands for what its owner likes."""
    inside = f"http://inside.example.org:{store.server_port}/"
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.2"))
    assert "address is not a public one" in Reader(store.root, inside).rule(f"{store.root}to?{inside}latest/meta-data")
    assert len(store.asked) == 1


def test_a_proxy_that_the_environment_names_is_not_used(
    store: Store, start_store: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = start_store()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.root)
    assert Reader(store.root).read(f"{store.root}a.jpg") == b"12345"
    assert (store.asked, proxy.asked) == (["/a.jpg"], [])
