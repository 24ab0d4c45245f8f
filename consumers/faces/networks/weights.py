"""dlib's serialized network file → the parameters of its layers, in the order in which they run.

The format, after dlib/serialize.h, dlib/float_details.h, dlib/cuda/tensor.h and dlib/dnn/layers.h: an integer is
one control byte (low nibble: how many bytes follow; 0x80: negative) and its bytes, lowest first; a float is two
integers, mantissa and exponent; a string is its length and its bytes; a tensor is the integer 2, four dimensions
and raw little-endian float32. A layer starts with its signature, a string, and layers are written from the input on.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from schemas.faults import UserFault

Array = NDArray[np.float32]

_CONVOLUTION = "con_4"
_BATCH_NORM = "bn_con2"
_DENSE = "fc_2"
# As a string is written: that its length is one byte, the length, and the string.
_SIGNATURE = re.compile(rb"\x01[\x04-\x07](con_4|affine_|bn_con2|fc_2)")
_TENSOR_VERSION = 2
_TENSOR_REFERENCE_VERSION = 1


class WeightsError(UserFault):
    """A weights file is missing, cut short, or not of the network that was asked for; the text says what to do."""


@dataclass(frozen=True)
class Convolution:
    """filters: float32 (outputs, inputs, height, width); bias: float32 (outputs,); the rest in pixels."""

    filters: Array
    bias: Array
    stride: int
    padding: int

    def then(self, affine: "Affine") -> Self:
        """This convolution and the affine layer after it as one: gamma·(w*x + b) + beta, folded in float64."""
        gamma = affine.gamma.astype(np.float64)
        filters = self.filters * gamma[:, None, None, None]
        bias = self.bias * gamma + affine.beta
        return type(self)(filters.astype(np.float32), bias.astype(np.float32), self.stride, self.padding)


@dataclass(frozen=True)
class Affine:
    """One factor and one summand per channel, each float64 (channels,)."""

    gamma: NDArray[np.float64]
    beta: NDArray[np.float64]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer without bias; weights: float32 (inputs, outputs)."""

    weights: Array


@dataclass(frozen=True)
class Suppression:
    """Parameters of the MMOD loss layer: the window in pixels, and the overlap above which two finds are one face."""

    window: int
    overlap: float


def read_network(path: Path, convolutions: int, dense: int = 0) -> tuple[list[Convolution], list[Dense]]:
    """The layers, in the order in which they run; an affine layer is folded into the convolution before it.

    Raises WeightsError, also where the file does not hold as many of each as are asked for.
    """
    reader = _Reader(path)
    found: tuple[list[Convolution], list[Dense]] = [], []
    while (signature := reader.next_layer()) is not None:
        if signature == _CONVOLUTION:
            found[0].append(reader.convolution())
        elif signature == _DENSE:
            found[1].append(reader.dense())
        else:
            affine = reader.affine(from_batch_norm=signature == _BATCH_NORM)
            if not found[0] or found[0][-1].bias.shape != affine.beta.shape:
                raise reader.error("an affine layer does not fit the convolution before it")
            found[0][-1] = found[0][-1].then(affine)
    counts = len(found[0]), len(found[1])
    if counts != (convolutions, dense):
        raise _error(path, f"it holds {counts} convolutions and dense layers, not {convolutions, dense}")
    return found


def read_suppression(path: Path) -> Suppression:
    """The detection window and the overlap of non-max suppression, of a detector's file. Raises WeightsError."""
    reader = _Reader(path)
    if reader.integer() != 1 or reader.string() != "loss_mmod_" or reader.integer() != 1:
        raise reader.error("it is no MMOD detector as published with dlib 19")
    width, height = reader.integer(), reader.integer()
    if width != height:
        raise reader.error(f"its detection window is {width}x{height}, not a square")
    for _ in ("loss per false alarm", "loss per missed target", "overlap with the truth"):
        reader.real()
    return Suppression(width, reader.real())


def file_digest(path: Path) -> str:
    """The SHA-256 of a weights file, in hexadecimal. Raises WeightsError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return _error(path, f"it cannot be read ({error.strerror})")


def _error(path: Path, fault: str) -> WeightsError:
    return WeightsError(
        f"{path} is not the weights file expected: {fault}; pip install --force-reinstall face_recognition_models"
    )


class _Reader:
    """Reads a file from front to back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error

    def error(self, fault: str) -> WeightsError:
        return _error(self._path, f"{fault} (at byte {self._at})")

    def next_layer(self) -> str | None:
        """The next signature of a layer with parameters, read past; None where there is none."""
        match = _SIGNATURE.search(self._data, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[1].decode()

    def convolution(self) -> Convolution:
        parameters = self.tensor().ravel()
        outputs, height, width, stride, stride_x, padding, padding_x = (self.integer() for _ in range(7))
        shape = self.tensor_reference()
        biases = self.tensor_reference()
        square = stride == stride_x and padding == padding_x
        if not square or shape[0] != outputs or shape[2:] != (height, width) or biases != (1, outputs, 1, 1):
            raise self.error(f"a convolution of {shape} with bias {biases} is not one of these networks")
        if parameters.size != math.prod(shape) + outputs:
            raise self.error(f"a convolution of {shape} has {parameters.size} parameters")
        return Convolution(parameters[:-outputs].reshape(shape), parameters[-outputs:], stride, padding)

    def affine(self, from_batch_norm: bool) -> Affine:
        parameters = self.tensor().ravel().astype(np.float64)
        if parameters.size % 2:
            raise self.error("an affine layer has an odd number of parameters")
        gamma, beta = np.split(parameters, 2)
        if not from_batch_norm:
            return Affine(gamma, beta)
        self.tensor_reference()
        self.tensor_reference()
        _, _, mean, variance = (self.tensor().ravel().astype(np.float64) for _ in range(4))
        self.integer()
        self.integer()
        *_, epsilon = (self.real() for _ in range(5))
        if not mean.shape == variance.shape == gamma.shape:
            raise self.error("a batch normalisation has statistics of another size")
        # As dlib does in float32 when it loads a file that was saved in training.
        gamma = gamma / np.sqrt(variance + epsilon)
        return Affine(gamma, beta - gamma * mean)

    def dense(self) -> Dense:
        outputs, inputs = self.integer(), self.integer()
        parameters = self.tensor()
        if parameters.size != inputs * outputs:
            raise self.error(f"a fully connected layer of {inputs} to {outputs} has {parameters.size} parameters")
        return Dense(parameters.reshape(inputs, outputs))

    def tensor(self) -> Array:
        if self.integer() != _TENSOR_VERSION:
            raise self.error("a tensor is expected")
        shape = self._shape()
        values = np.frombuffer(self._take(4 * math.prod(shape)), dtype="<f4").reshape(shape)
        return values.astype(np.float32)

    def tensor_reference(self) -> tuple[int, ...]:
        """The shape of a part of a tensor, dlib's alias_tensor."""
        if self.integer() != _TENSOR_REFERENCE_VERSION:
            raise self.error("a reference to a tensor is expected")
        return self._shape()

    def _shape(self) -> tuple[int, ...]:
        shape = tuple(self.integer() for _ in range(4))
        if min(shape) < 0 or max(shape) > len(self._data):
            raise self.error(f"a tensor cannot have the shape {shape}")
        return shape

    def real(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError:
            raise self.error(f"{mantissa} · 2^{exponent} is no number of such a file") from None

    def string(self) -> str:
        return self._take(self.integer()).decode("latin-1")

    def integer(self) -> int:
        control = self._take(1)[0]
        value = int.from_bytes(self._take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if size < 0 or len(taken) != size:
            raise self.error("it ends too early")
        self._at += size
        return taken
