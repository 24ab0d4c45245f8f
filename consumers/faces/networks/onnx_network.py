"""A network that somebody has as ONNX: aligned faces → embeddings, as its manifest says."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.onnx_files import build_embedder
from consumers.faces.networks.sessions import Session
from schemas.encoders.manifest import EncoderManifest
from schemas.events.encodings import GREATEST_NORM, LEAST_NORM
from schemas.faults import UserFault

_AT_ONCE = 16  # faces, where the graph takes any number
_SAME = 1e-3  # of a length: what an embedding may differ by among others


class NetworkError(UserFault):
    """A graph that cannot be the network of its manifest. The text says why."""


class OnnxNetwork:
    """The network of an encoder: one input of shape (batch, 3, side, side), one output (batch, d), both float32.

    A graph whose batch is 1 runs once for each face.
    """

    def __init__(self, graph: Path, manifest: EncoderManifest, threads: int = 1) -> None:
        """Opens an ONNX file. Raises NetworkError where its shape is not the manifest's, or onnxruntime refuses it."""
        self._manifest = manifest
        self._at_once = 1 if batch_of_graph(graph, manifest) == 1 else _AT_ONCE
        try:
            self._session = Session(graph, threads)
        except Exception as error:  # noqa: BLE001 - onnxruntime's have no base of their own
            raise NetworkError(f"{graph}: onnxruntime cannot open it: {_first_line(error)}") from None
        self.provider = self._session.provider

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings, float32 (n, d), of aligned faces, uint8 RGB of shape (n, side, side, 3)."""
        given = self._manifest.input
        values = chips.astype(np.float32) if given.channels == "rgb" else chips[..., ::-1].astype(np.float32)
        values = (values - np.array(given.mean, np.float32)) * np.float32(given.scale)
        pixels = values.transpose(0, 3, 1, 2)
        embeddings = self._run(pixels)
        if given.mirror:
            embeddings = (embeddings + self._run(pixels[..., ::-1])) / np.float32(2)
        if self._manifest.output.normalised:
            with np.errstate(invalid="ignore"):  # what is not finite is refused where it is looked at
                embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.float32(1e-12))
        return embeddings

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        begins = range(0, len(pixels), self._at_once)
        parts = (self._session.run(np.ascontiguousarray(pixels[begin : begin + self._at_once])) for begin in begins)
        return np.concatenate([np.empty((0, self._manifest.output.dimensions), np.float32), *parts])


def batch_of_graph(path: Path, manifest: EncoderManifest) -> int:
    """How many faces a graph takes at once: 1, or 0 for any number. Raises NetworkError where its shape is another."""
    graph = _graph_in(path)
    with_values = {one.name for one in graph.initializer}
    inputs, outputs = [one for one in graph.input if one.name not in with_values], list(graph.output)
    side, dimensions = manifest.alignment.side, manifest.output.dimensions
    if len(inputs) != 1 or len(outputs) != 1:
        raise NetworkError(f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; one of each is needed")
    batch = _checked_shape(path, "input", inputs[0], (3, side, side))
    _checked_shape(path, "output", outputs[0], (dimensions,))
    return batch


def check_network(path: Path, manifest: EncoderManifest) -> None:
    """Run a file on a few pictures, as a worker would.

    Raises WeightsError and NetworkError where it has another shape than its manifest says, or gives no embeddings.
    """
    batch_of_graph(path, manifest)
    chips = _pictures(manifest.alignment.side)
    with tempfile.TemporaryDirectory() as folder:
        network = OnnxNetwork(cached_graph(Path(folder), path, build_embedder), manifest)
    try:
        embeddings = network.embed(chips)
        alone = np.concatenate([network.embed(chip[None]) for chip in chips])
    except Exception as error:  # noqa: BLE001 - onnxruntime's have no base of their own
        raise NetworkError(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from None
    expected = len(chips), manifest.output.dimensions
    if embeddings.shape != expected:
        raise NetworkError(f"{path} gives an output of shape {embeddings.shape} for {len(chips)} faces, not {expected}")
    if not np.isfinite(embeddings).all():
        raise NetworkError(
            f"{path} gives numbers that are not finite: the file is damaged, or mean and scale are wrong"
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    if not ((lengths >= LEAST_NORM) & (lengths <= GREATEST_NORM)).all():
        raise NetworkError(
            f"{path} gives embeddings of a length of {lengths.min():.3g} to {lengths.max():.3g}; {LEAST_NORM:g} to "
            f"{GREATEST_NORM:g} is taken: set normalised = true, or mean and scale are wrong"
        )
    if (np.linalg.norm(embeddings - alone, axis=1) > _SAME * lengths).any():
        raise NetworkError(f"{path}: an embedding depends on the faces beside it: export the network for inference")


def _graph_in(path: Path) -> onnx.GraphProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - what protobuf raises stands in a module without types
        raise NetworkError(f"{path} is no ONNX: it may have been cut short") from None
    outside = [one for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise NetworkError(f"{path} has its weights in another file, which no hash covers: save it as one file")
    return model.graph


def _checked_shape(path: Path, which: str, one: onnx.ValueInfoProto, rest: tuple[int, ...]) -> int:
    """The batch of an input or output, 0 for any; what comes after it is `rest`, or not stated."""
    kind = one.type.tensor_type
    shape = [size.dim_value for size in kind.shape.dim]  # 0: any
    fits = len(shape) == 1 + len(rest) and all(
        size in (0, needed) for size, needed in zip(shape[1:], rest, strict=True)
    )
    if not fits or shape[0] not in (0, 1) or kind.elem_type != onnx.TensorProto.FLOAT:
        has = " × ".join(str(size) if size else "any" for size in shape)
        needed = " × ".join(map(str, rest))
        what = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise NetworkError(
            f"{path}: its {which} is {what} of {has}; its manifest asks for float of 1 or any × {needed}"
        )
    return int(shape[0])


def _pictures(side: int) -> NDArray[np.uint8]:
    """Black, white, a ramp and noise: uint8 of shape (4, side, side, 3)."""
    ramp = np.linspace(0, 255, side * side * 3).reshape(side, side, 3)
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3))
    return np.stack([np.zeros_like(ramp), np.full_like(ramp, 255), ramp, noise]).astype(np.uint8)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
