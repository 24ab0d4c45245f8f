"""Small networks that tests make, as somebody's own encoder: a graph of 256 numbers, and its manifest."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, DIMENSIONS = 112, 256
NETWORK = "own.onnx"


def small_graph(dimensions: int = DIMENSIONS, side: int = SIDE, batch: int | str = "n", of_numbers: float = 1) -> bytes:
    """A network that tells pictures apart: means of 7 × 7 squares in each colour, by a matrix of random numbers.

    `of_numbers` is what its matrix is multiplied by.
    """
    squares = 7 * 7 * 3
    matrix = np.random.default_rng(1).normal(size=(squares, dimensions)) / np.sqrt(squares * dimensions)
    nodes = [
        helper.make_node("AveragePool", ["data"], ["means"], kernel_shape=[side // 7] * 2, strides=[side // 7] * 2),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Add", ["flat", "one"], ["above"]),  # a black picture has an embedding, too
        helper.make_node("MatMul", ["above", "matrix"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, dimensions])],
        [
            numpy_helper.from_array((of_numbers * matrix).astype(np.float32), "matrix"),
            numpy_helper.from_array(np.linspace(0.01, 0.2, squares).astype(np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


MANIFEST = """\
name = "own"
network = "own-net"
pipeline = 1

[detectors]
cpu = "yunet"
gpu = "cnn"

[alignment]
by = "template"
side = 112
template = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]

[input]
channels = "bgr"
mean = [127.5, 127.5, 127.5]
scale = 0.0078125
mirror = true

[output]
dimensions = 256
normalised = true

[[weights]]
role = "landmarks"
file = "face_detection_yunet_2023mar.onnx"
sha256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
licence = "MIT"
source = "YuNet"
training_data = "WIDER FACE"

[[weights]]
role = "network"
file = "own.onnx"
sha256 = "{sha256}"
licence = "ours"
source = "a test"
training_data = "none"
"""


def write_own(folder: Path, network: bytes | None = None, **values: str) -> Path:
    """The manifest of an encoder called own, of 256 numbers, and its network beside it. Returns the manifest's path.

    `values` are written, as TOML, in the place of what stands behind those names.
    """
    network = small_graph() if network is None else network
    text = MANIFEST.replace("{sha256}", hashlib.sha256(network).hexdigest())
    for name, value in values.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NETWORK).write_bytes(network)
    path = folder / "own.toml"
    path.write_text(text)
    return path
