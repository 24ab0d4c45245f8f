"""Layers → ONNX graphs of the two networks, after dlib's tools/python/src/face_recognition.cpp and
cnn_face_detector.cpp. Pixels go in as 0…255; they are normalised as in dlib/dnn/input.h.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from consumers.faces.networks.weights import Convolution, read_network

VERSION = 1
"""Goes up whenever a graph built from the same weights would be another one: the cache builds it anew."""

CHIP_SIDE = 150
MEAN = (122.782, 117.001, 104.298)
"""Of red, green and blue over the photos that the networks were trained on; dlib/dnn/input.h."""

MMOD_STRIDE = 8
MMOD_CENTRE = 14
"""Score (row, column) is that of the window around pixel (8 row + 14, 8 column + 14): three convolutions of 5x5
with stride 2 and no padding, dlib's output_tensor_to_input_tensor."""
MMOD_MIN_SIDE = 29
"""Pixels that one score sees of the input before the padded layers; a smaller image has none."""

_OPSET = 17
_IR_VERSION = 9
_SCALE = 256.0
_VECTOR = 16


def build_resnet(weights: Path) -> onnx.ModelProto:
    """Input `chips`, uint8 (N, 150, 150, 3); output `embeddings`, float32 (N, 128). Raises WeightsError."""
    (first, *rest), (dense,) = read_network(weights, convolutions=29, dense=1)
    graph = _Graph()
    x = graph.normalised("chips")
    x = graph.relu(graph.convolution(x, _scaled(first)))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    side = ((CHIP_SIDE - 7) // 2 + 1 - 3) // 2 + 1
    for one, two in zip(rest[0::2], rest[1::2], strict=True):
        x, side = _residual_block(graph, x, one, two, side)
    x = graph.node("ReduceMean", x, axes=[2, 3], keepdims=0)
    graph.node("MatMul", x, graph.constant(dense.weights), name="embeddings")
    chips = helper.make_tensor_value_info("chips", TensorProto.UINT8, ["N", CHIP_SIDE, CHIP_SIDE, 3])
    return graph.model(chips, helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["N", 128]))


def _residual_block(graph: "_Graph", x: str, one: Convolution, two: Convolution, side: int) -> tuple[str, int]:
    """ReLU(two(ReLU(one(x))) + x), and the side of its map in pixels.

    Where `one` has stride 2, x is pooled for the sum, and both are filled up with zeros to one shape: dlib's add_prev.
    """
    y = graph.convolution(graph.relu(graph.convolution(x, one)), two)
    if one.stride == 1:
        return graph.relu(graph.node("Add", y, x)), side
    y_side, x_side = (side - 3) // 2 + 1, side // 2
    side = max(y_side, x_side)
    outputs, inputs = one.filters.shape[:2]
    x = graph.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = graph.padded(x, outputs - inputs, side - x_side)
    y = graph.padded(y, 0, side - y_side)
    return graph.relu(graph.node("Add", y, x)), side


def build_mmod(weights: Path) -> onnx.ModelProto:
    """Input `tiles`, float32 (N, 3, height, width): pixels without MEAN, at least MMOD_MIN_SIDE each way.

    Output `scores`, float32 (N, 1, rows, columns), one for each window of MMOD_STRIDE. Raises WeightsError.
    The input is no uint8 photo because the levels of dlib's pyramid are not rounded to whole values.
    """
    (first, *rest, last), _ = read_network(weights, convolutions=7)
    graph = _Graph()
    x = graph.relu(graph.convolution("tiles", _widened(_scaled(first))))
    for layer in rest:
        x = graph.relu(graph.convolution(x, _widened(layer)))
    down, across = _separated(_widened(last, outputs=False))
    x = graph.node("Conv", x, graph.constant(down), pads=[last.padding, 0, last.padding, 0])
    constants = graph.constant(across), graph.constant(last.bias)
    graph.node("Conv", x, *constants, name="scores", pads=[0, last.padding, 0, last.padding])
    tiles = helper.make_tensor_value_info("tiles", TensorProto.FLOAT, ["N", 3, "height", "width"])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 1, "rows", "columns"])
    return graph.model(tiles, scores)


def _widened(layer: Convolution, outputs: bool = True) -> Convolution:
    """With channels of zeros, up to a multiple of 16: with 45, onnxruntime leaves the layout of its fast kernels."""
    more_outputs = -len(layer.filters) % _VECTOR if outputs else 0
    channels = layer.filters.shape[1]
    more_inputs = -channels % _VECTOR if channels > _VECTOR else 0
    filters = np.pad(layer.filters, ((0, more_outputs), (0, more_inputs), (0, 0), (0, 0)))
    return Convolution(filters, np.pad(layer.bias, (0, more_outputs)), layer.stride, layer.padding)


def _separated(layer: Convolution) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The filters, for one output, as columns (side, inputs, side, 1) and then their sum along the row.

    onnxruntime computes 16 outputs at once, of which one would be of use, on the whole filter; so it is 9, on a ninth.
    """
    (filters,) = layer.filters
    columns = filters.transpose(2, 0, 1)[..., None]
    total = np.eye(len(columns), dtype=np.float32)[None, :, None, :]
    return np.ascontiguousarray(columns), total


def _scaled(convolution: Convolution) -> Convolution:
    """The convolution for pixels that are not yet divided by 256; a power of two, so nothing is rounded."""
    filters = (convolution.filters / _SCALE).astype(np.float32)
    return Convolution(filters, convolution.bias, convolution.stride, convolution.padding)


class _Graph:
    """Collects nodes and constants; values are named by their number."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"{operator}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def normalised(self, pixels: str) -> str:
        """uint8 (N, H, W, 3) → float32 (N, 3, H, W) without the mean, still in 0…255."""
        x = self.node("Cast", pixels, to=TensorProto.FLOAT)
        x = self.node("Transpose", x, perm=[0, 3, 1, 2])
        return self.node("Sub", x, self.constant(np.array(MEAN, dtype=np.float32).reshape(1, 3, 1, 1)))

    def convolution(self, x: str, layer: Convolution) -> str:
        constants = self.constant(layer.filters), self.constant(layer.bias)
        return self.node("Conv", x, *constants, strides=[layer.stride] * 2, pads=[layer.padding] * 4)

    def padded(self, x: str, channels: int, pixels: int) -> str:
        """With zeros: more channels, more pixels at the bottom and at the right."""
        if channels == pixels == 0:
            return x
        return self.node("Pad", x, self.constant(np.array([0, 0, 0, 0, 0, channels, pixels, pixels])))

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def model(self, source: onnx.ValueInfoProto, target: onnx.ValueInfoProto) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "facematch", [source], [target], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        return model
