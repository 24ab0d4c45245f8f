"""Cache of files that take a while to make: the first process to need one makes it, the others read it.

Each file has another beside it with its SHA-256, in the form of `sha256sum`. All may be deleted at any time.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from consumers.faces.networks.graphs import VERSION
from consumers.faces.networks.weights import file_digest
from schemas.faults import UserFault


class CacheError(UserFault):
    """The cache's folder cannot be read or written to. The text says why, and which setting names it."""


def cached_graph(folder: Path, weights: Path, build: Callable[[Path], onnx.ModelProto]) -> Path:
    """The file of the graph that `build` makes of `weights`.

    Its name carries the weights and the builder's version, so a graph of other weights or of an older builder is never
    taken for it. Raises WeightsError and CacheError.
    """
    key = hashlib.sha256(f"version {VERSION} of {file_digest(weights)}".encode()).hexdigest()[:16]
    return cached_file(
        folder, f"{weights.stem}-{key}.onnx", lambda: build(weights).SerializeToString(deterministic=True)
    )


def cached_file(folder: Path, name: str, make: Callable[[], bytes]) -> Path:
    """The file of that name, which `make` makes where it is not there, or not whole.

    Any number of processes may call it at once: each sees no file, or a whole one. Those that see none make it
    themselves, and as all make the same, it does not matter whose stays.
    Raises CacheError.
    """
    path = folder / name
    try:
        if not _is_whole(path):
            folder.mkdir(parents=True, exist_ok=True)
            content = make()
            _write(path, content)
            _write(_digest_file(path), _digest_line(path, hashlib.sha256(content).hexdigest()))
    except OSError as error:
        raise CacheError(
            f"{path} cannot be read or written ({error.strerror}): let FACEMATCH_MODEL_CACHE name another"
        ) from None
    return path


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest_line(path: Path, digest: str) -> bytes:
    return f"{digest}  {path.name}\n".encode()


def _is_whole(path: Path) -> bool:
    """Whether the file is there, and is what was written."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return _digest_file(path).read_bytes() == _digest_line(path, digest)
    except FileNotFoundError:
        return False


def _write(path: Path, content: bytes) -> None:
    """To another name first, and then moved: nobody sees half a file, and no error leaves one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            # Temporary files are for this user only, but workers may run as others.
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
