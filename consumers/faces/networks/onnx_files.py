"""ONNX files as others publish them → graphs that take photos as they are, any number at once, and are fast on CPUs."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from consumers.faces.networks.weights import WeightsError
from schemas.encoders.manifest import NetworkInput

YUNET_STRIDES = (8, 16, 32)
YUNET_VALUES = 16
"""Of each cell: the score of a face, that of an object, 4 numbers of the box, 10 of the landmarks."""

_OPSET = 17
_DEPEND_ON_THE_BATCH = ("Reshape", "Expand", "Tile", "Loop", "Scan", "If")  # may have the number of faces in a constant


def build_yunet(weights: Path) -> onnx.ModelProto:
    """Input `photos`, uint8 RGB (N, height, width, 3), sides a multiple of 32; output `cells`, float32 (N, cells, 16).

    Cells stand in the order of YUNET_STRIDES, row by row. Raises WeightsError.
    """
    model = _read(weights)
    graph = model.graph
    try:
        outputs = [[f"{name}_{stride}" for name in ("cls", "obj", "bbox", "kps")] for stride in YUNET_STRIDES]
        assert {one.name for one in graph.output} == {name for group in outputs for name in group}
    except AssertionError:
        raise WeightsError(f"{weights} is no YuNet: its outputs have other names") from None
    for constant in graph.initializer:  # a reshape to one photo, whatever there are
        values = numpy_helper.to_array(constant)
        if values.dtype == np.int64 and values.size == 3 and values[0] == 1 and values[1] == -1:
            constant.CopyFrom(numpy_helper.from_array(np.array([0, -1, values[2]]), constant.name))
    _take_pixels(
        model, "photos", ("height", "width"), NetworkInput(channels="bgr", mean=(0, 0, 0), scale=1, mirror=False)
    )
    graph.node.extend(
        helper.make_node("Concat", group, [f"cells_{stride}"], axis=2)
        for stride, group in zip(YUNET_STRIDES, outputs, strict=True)
    )
    graph.node.append(helper.make_node("Concat", [f"cells_{stride}" for stride in YUNET_STRIDES], ["cells"], axis=1))
    _give(model, "cells", ["N", "cells", YUNET_VALUES])
    return _checked(model, weights)


def build_embedder(weights: Path) -> onnx.ModelProto:
    """The network of aligned faces in a file, with the same input and output, twice as fast on a CPU.

    One that was published for a single face takes any number, where nothing in it depends on that. Raises WeightsError.
    """
    model = _read(weights)
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Dropout":
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1]))
    _rewrite_prelu(graph)
    if not any(node.op_type in _DEPEND_ON_THE_BATCH for node in graph.node):
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "N"
    return _checked(model, weights)


def _read(weights: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(weights)
        if model.opset_import[0].version < _OPSET:
            model = version_converter.convert_version(model, _OPSET)
    except FileNotFoundError:
        raise WeightsError(f"{weights} is not there: `facematch encoder list` names what is missing") from None
    except Exception as error:  # noqa: BLE001 - protobuf and the converter raise anything
        raise WeightsError(f"{weights} is no ONNX file that can be read ({type(error).__name__})") from None
    constants = {one.name for one in model.graph.initializer}
    kept = [one for one in model.graph.input if one.name not in constants]
    del model.graph.input[:]  # what has a value is no input: onnxruntime folds constants alone
    model.graph.input.extend(kept)
    del model.graph.value_info[:]  # shapes of one photo
    return model


def _inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return list(graph.input)


def _sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [one.dim_value or one.dim_param for one in value.type.tensor_type.shape.dim]


def _take_pixels(model: onnx.ModelProto, name: str, sides: tuple[int | str, int | str], given: NetworkInput) -> None:
    """Replace the graph's input by photos, uint8 RGB, and make of them what it took."""
    graph = model.graph
    (before,) = _inputs(graph)
    nodes = [
        helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
    ]
    last = "planes"

    def add(operator: str, values: NDArray[np.generic], output: str) -> None:
        nonlocal last
        graph.initializer.append(numpy_helper.from_array(values, f"{output}_by"))
        node = helper.make_node(operator, [last, f"{output}_by"], [output])
        if operator == "Gather":
            node.attribute.append(helper.make_attribute("axis", 1))
        nodes.append(node)
        last = output

    if given.channels == "bgr":
        add("Gather", np.array([2, 1, 0]), "turned_around")
    if any(given.mean):
        add("Sub", np.array(given.mean, np.float32).reshape(1, 3, 1, 1), "centred")
    if given.scale != 1:
        add("Mul", np.array(given.scale, np.float32), "scaled")
    nodes.append(helper.make_node("Identity", [last], [before.name]))
    first = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + first)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ["N", *sides, 3]))


def _give(model: onnx.ModelProto, name: str, shape: list[int | str]) -> None:
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))


def _rewrite_prelu(graph: onnx.GraphProto) -> None:
    """PReLU(x) = s·x + (1 - s)·ReLU(x), as two depthwise convolutions of 1 x 1: these stay in the layout of the others.

    onnxruntime has no such kernel for PReLU, and turned each image from one layout to the other and back.
    """
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    nodes = []
    for node in graph.node:
        slopes = constants.get(node.input[1]) if node.op_type == "PRelu" else None
        if slopes is None or slopes.size != slopes.shape[0]:
            nodes.append(node)
            continue
        x, y, channels = node.input[0], node.output[0], slopes.size
        for part, values in (("s", slopes), ("t", 1 - slopes)):
            filters = values.reshape(channels, 1, 1, 1).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(filters, f"{y}_{part}"))
        nodes += [
            helper.make_node("Conv", [x, f"{y}_s"], [f"{y}_below"], group=channels, kernel_shape=[1, 1]),
            helper.make_node("Relu", [x], [f"{y}_relu"]),
            helper.make_node("Conv", [f"{y}_relu", f"{y}_t"], [f"{y}_above"], group=channels, kernel_shape=[1, 1]),
            helper.make_node("Add", [f"{y}_below", f"{y}_above"], [y]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _checked(model: onnx.ModelProto, weights: Path) -> onnx.ModelProto:
    used = {name for node in model.graph.node for name in node.input}
    for constant in [one for one in model.graph.initializer if one.name not in used]:
        model.graph.initializer.remove(constant)
    try:
        onnx.checker.check_model(model)
        return shape_inference.infer_shapes(model)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise WeightsError(f"the network of {weights} is broken: {str(error).splitlines()[0]}") from None
