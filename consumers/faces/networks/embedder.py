"""Face chips → embeddings: dlib's ResNet, run by onnxruntime."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consumers.faces.networks.cache import cached_graph
from consumers.faces.networks.graphs import CHIP_SIDE, build_resnet
from consumers.faces.networks.sessions import Session
from schemas.events.encodings import EMBEDDING_DIMENSIONS

_BATCH = 16
"""Chips that run at once, as in dlib: more are no faster, and each takes 3 MB while it runs."""


class Embedder:
    """The embedding network: computes what `dlib.face_recognition_model_v1.compute_face_descriptor` does."""

    provider: str
    """What runs the network: "cuda" or "cpu"."""

    def __init__(self, weights: Path, cache: Path, threads: int = 1) -> None:
        """Opens dlib_face_recognition_resnet_model_v1.dat; `cache` is the folder of built graphs.

        Raises WeightsError and CacheError.
        """
        self._session = Session(cached_graph(cache, weights, build_resnet), threads)
        self.provider = self._session.provider

    def embed(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings, float32 (N, 128), of chips, uint8 RGB (N, 150, 150, 3), as dlib.get_face_chip cuts them.

        Each row equals dlib's up to the rounding of float32: about 1e-6 in Euclidean distance, of a norm of 1.4.
        A chip's embedding does not depend on the chips beside it. Raises ValueError on another shape or dtype.
        """
        if chips.dtype != np.uint8 or chips.shape[1:] != (CHIP_SIDE, CHIP_SIDE, 3):
            raise ValueError(f"chips are uint8 of shape (N, 150, 150, 3), not {chips.dtype} of {chips.shape}")
        embeddings = np.empty((len(chips), EMBEDDING_DIMENSIONS), dtype=np.float32)
        for start in range(0, len(chips), _BATCH):
            part = slice(start, start + _BATCH)
            embeddings[part] = self._session.run(chips[part])
        return embeddings
