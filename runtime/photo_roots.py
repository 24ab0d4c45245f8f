"""Below which URIs photos may be read. `facematch submit` adds what it submits; the encoder asks before it reads."""

import fcntl
from pathlib import Path
from urllib.parse import unquote, urlsplit

from yarl import URL

_FILE = "photo-roots"


def root_of(uri: str) -> str:
    """What submitting a photo allows: its folder (file), or its scheme and host (everything else)."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).resolve().parent.as_uri() + "/"
    return f"{parts.scheme}://{parts.netloc}/"


def is_below(uri: str, root: str) -> bool:
    """Whether a URI lies below a root, however a server may read it. Links in a file's path are followed first."""
    try:
        place, path = _place_and_path(uri)
        root_place, folder = _place_and_path(root)
        if place != root_place:
            return False
        if urlsplit(root).scheme == "file":
            return Path(unquote(path)).resolve().is_relative_to(Path(unquote(folder)).resolve())
    except (ValueError, OSError, RuntimeError):  # no valid URI, a null byte, a loop of links
        return False
    # Part by part: to some servers %2F is a slash, and to others it is not.
    above = [unquote(part) for part in folder.rstrip("/").split("/")]
    return not _climbs(uri) and [unquote(part) for part in path.split("/")][: len(above)] == above


def _place_and_path(uri: str) -> tuple[tuple[object, ...], str]:
    """Scheme and host, and the path as it stands. On the web both are what the library that asks makes of the URI."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        return (parts.scheme, parts.netloc), parts.path
    url = URL(uri)
    return (url.scheme, url.raw_host, url.port), url.raw_path


def _climbs(uri: str) -> bool:
    """Whether some server may see a `..` in the path: encoded twice, behind a backslash, or with a parameter."""
    path = unquote(unquote(urlsplit(uri).path))
    return any(part.partition(";")[0] == ".." for part in path.replace("\\", "/").split("/"))


def submitted_roots(data_folder: Path) -> list[str]:
    """The roots of all that was submitted from this machine."""
    try:
        return (data_folder / _FILE).read_text().splitlines()
    except FileNotFoundError:
        return []


def allow(data_folder: Path, roots: set[str]) -> None:
    """Add roots to those submitted from this machine."""
    data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_folder / _FILE).touch(mode=0o600)
    with (data_folder / _FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for root in sorted(roots - set(submitted_roots(data_folder))):
            file.write(root + "\n")
