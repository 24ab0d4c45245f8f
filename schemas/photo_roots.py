"""Below which URIs photos may be read. `facematch submit` adds what it submits; the encoder asks before it reads."""

import fcntl
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FILE = "photo-roots"


def root_of(uri: str) -> str:
    """What submitting a photo allows: its folder (file), or its scheme and host (everything else)."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).resolve().parent.as_uri() + "/"
    return f"{parts.scheme}://{parts.netloc}/"


def is_below(uri: str, root: str) -> bool:
    """Whether a URI lies below a root. Links and `..` in a file's path are followed first."""
    wanted, allowed = urlsplit(uri), urlsplit(root)
    if (wanted.scheme, wanted.netloc) != (allowed.scheme, allowed.netloc):
        return False
    try:
        path, folder = Path(unquote(wanted.path)), Path(unquote(allowed.path))
        if wanted.scheme == "file":
            path, folder = path.resolve(), folder.resolve()
        elif ".." in path.parts:
            return False
    except (ValueError, OSError, RuntimeError):  # a null byte, a loop of links
        return False
    return path.is_relative_to(folder)


def submitted_roots(data_folder: Path) -> list[str]:
    """The roots of all that was submitted from this machine."""
    try:
        return (data_folder / _FILE).read_text().splitlines()
    except FileNotFoundError:
        return []


def allow(data_folder: Path, roots: set[str]) -> None:
    """Add roots to those submitted from this machine."""
    data_folder.mkdir(parents=True, exist_ok=True)
    with (data_folder / _FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for root in sorted(roots - set(submitted_roots(data_folder))):
            file.write(root + "\n")
