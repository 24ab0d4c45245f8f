"""hnswlib alone: what anyone would write in ten lines, to measure the matcher against."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from runtime.process.cores import cores
from schemas.events.encodings import EMBEDDING_DIMENSIONS
from streams.gallery.exact import half_norms, search_block
from streams.gallery.segment import search_index
from tests.bench.matching import memory_of

# From the fastest to add to on: links of each node, and candidates looked at for them.
_DENSITIES = ((12, 100), (16, 100), (24, 150), (32, 200), (48, 400))
_EFS = (32, 48, 64, 96, 128, 192, 256)


def fastest(
    vectors: NDArray[np.float32], most: int, probes: NDArray[np.float32], threshold: float, floor: float
) -> hnswlib.Index:
    """An index with room for more, with the first parameters that find the share `floor` of what is within reach."""
    at, rows, _ = search_block(probes, vectors, half_norms(vectors), threshold)
    expected = at * len(vectors) + rows
    for m, ef_construction in _DENSITIES:
        index = hnswlib.Index(space="l2", dim=EMBEDDING_DIMENSIONS)
        index.init_index(most, M=m, ef_construction=ef_construction)
        index.add_items(vectors, np.arange(len(vectors)), num_threads=cores())
        for ef in _EFS:
            index.set_ef(ef)
            found = search_index(index, probes, threshold)
            if np.isin(expected, found.probes * len(vectors) + found.rows).mean() >= floor:
                return index
    return index


def one_at_a_time(index: hnswlib.Index, newcomers: NDArray[np.float32], threshold: float) -> tuple[float, int]:
    """Compare each with all before it, then add it: newcomers a second, and how many pairs were found.

    k doubles until the farthest is beyond the threshold: with one k for all, most pairs of a few would be missed.
    """
    count, limit = index.get_current_count(), threshold**2
    pairs = 0
    begun = time.perf_counter()
    for number, newcomer in enumerate(newcomers):
        k = index.ef  # as many are looked at in any case
        while True:
            _, squares = index.knn_query(newcomer, k=k, num_threads=1)
            near = squares[0] <= limit
            if not near[-1]:
                break
            k *= 2
        pairs += int(near.sum())
        index.add_items(newcomer, count + number, num_threads=1)
    return len(newcomers) / (time.perf_counter() - begun), pairs


def count_pairs(gallery: NDArray[np.float32], newcomers: NDArray[np.float32], threshold: float) -> int:
    """How many pairs there are of a newcomer and one before it, in the gallery or among the newcomers."""
    everyone = np.concatenate([gallery, newcomers])
    at, rows, _ = search_block(newcomers, everyone, half_norms(everyone), threshold)
    return int((rows < len(gallery) + at).sum())


def memory_alone(index: hnswlib.Index) -> dict[str, float]:
    """Of a fresh process that loads the index, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save_index(str(path))
        command = [sys.executable, "-m", "tests.bench.bare_index", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    resident, most = done.stdout.split()
    return {"VmRSS": float(resident), "VmHWM": float(most)}


if __name__ == "__main__":
    loaded = hnswlib.Index(space="l2", dim=EMBEDDING_DIMENSIONS)
    loaded.load_index(sys.argv[1])
    print(*memory_of().values())
