"""Built graphs, kept in a folder: the first process to need one builds it, the others read it.

A graph has a file beside it with its SHA-256, in the form of `sha256sum`. Their name carries the weights and the
builder's version, so a graph of other weights or of an older builder is never taken for it; old ones may be deleted
at any time.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from consumers.models.graphs import VERSION
from consumers.models.weights import file_digest


def cached_graph(folder: Path, weights: Path, build: Callable[[Path], onnx.ModelProto]) -> Path:
    """The file of the graph that `build` makes of `weights`; it is built where it is not there, or not whole.

    Any number of processes may call it at once: each sees no graph, or a whole one. Those that see none build it
    themselves, and as all build the same, it does not matter whose file stays.
    Raises WeightsError, and OSError where the folder cannot be written to.
    """
    key = hashlib.sha256(f"version {VERSION} of {file_digest(weights)}".encode()).hexdigest()[:16]
    path = folder / f"{weights.stem}-{key}.onnx"
    if not _is_whole(path):
        graph = build(weights).SerializeToString(deterministic=True)
        folder.mkdir(parents=True, exist_ok=True)
        _write(path, graph)
        _write(_digest_file(path), _digest_line(path, hashlib.sha256(graph).hexdigest()))
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
