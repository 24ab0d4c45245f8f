"""Gives an index up when a tenth of it shows that it cannot reach the recall floor: building it costs minutes. Pure.

Of pairs within the threshold there are too few among a tenth of the nodes, and they are found: the many that a search
has to tell from them are missing too. How often the nearest of a probe are missed, by their rank, hardly depends on
how many nodes there are. Looked for are therefore three times as many of each probe as it has in reach of all nodes,
although they are farther away. Missed by M 16, ef 96, of `tests.population`, of 8000 newcomers:

| threshold | nodes     | missed by an index of a part | missed in the end |
| --------- | --------- | ---------------------------- | ----------------- |
| 0.40      | 200,000   | 0.0006 of 25,000             | 0.0000            |
| 0.40      | 400,000   | 0.0013 of 50,000             | 0.0009            |
| 0.40      | 1,000,000 | 0.0023 of 100,000            | 0.0032            |
| 0.45      | 200,000   | 0.0033 of 25,000             | 0.0029            |
| 0.45      | 400,000   | 0.0058 of 50,000             | 0.0064            |
| 0.45      | 1,000,000 | 0.0104 of 100,000            | 0.0159            |

Of 100,000 of a million M 24, ef 192, missed 0.0001 at 0.40 and 0.0007 at 0.45.
"""

import hnswlib
import numpy as np
from numpy.typing import NDArray

from streams.gallery.exact import half_norms
from streams.gallery.recall import recall_of

_TIMES_AS_MANY, _MOST_OF_A_PROBE = 3, 30  # neighbours looked for, by the number in reach: see above
_SCANNED_AT_ONCE = 5_000_000  # pairs of 12 bytes: 60 MB


def will_miss_floor(
    index: hnswlib.Index,
    ef: int,
    vectors: NDArray[np.float32],
    probes: NDArray[np.float32],
    in_reach: NDArray[np.int64],
    floor: float,
) -> bool:
    """Whether, with 95 % confidence, an index of all vectors will find less than the share `floor` at that ef.

    `index` has the first of `vectors` (n, d) so far; `in_reach`, (m,) int64, is how many of all lie within the
    threshold of each of `probes` (m, d).
    """
    nodes = vectors[: index.get_current_count()]
    wanted = np.minimum(_TIMES_AS_MANY * in_reach, min(_MOST_OF_A_PROBE, len(nodes)))
    probes, wanted = probes[wanted > 0], wanted[wanted > 0]
    if not len(probes):
        return False
    index.set_ef(ef)
    try:
        found, _ = index.knn_query(probes, k=min(ef, len(nodes)))
    except RuntimeError:  # the graph leads to fewer than k: those are searched exactly, see `streams.segment`
        return False
    nearest = _nearest(probes, nodes, int(wanted.max()))
    at, rank = np.nonzero(np.arange(nearest.shape[1]) < wanted[:, None])
    hit = (found[at] == nearest[at, rank][:, None]).any(axis=1)
    return recall_of(at, hit).high < floor


def _nearest(probes: NDArray[np.float32], nodes: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The nearest `count` nodes of each probe, the nearest first, by exact search: (m, count) int64."""
    halves, at_once = half_norms(nodes), max(1, _SCANNED_AT_ONCE // len(nodes))
    nearest = np.empty((len(probes), count), np.int64)
    for begin in range(0, len(probes), at_once):
        some = slice(begin, begin + at_once)
        farness = halves - probes[some] @ nodes.T
        chosen = np.argpartition(farness, count - 1)[:, :count]
        order = np.argsort(np.take_along_axis(farness, chosen, axis=1))
        nearest[some] = np.take_along_axis(chosen, order, axis=1)
    return nearest
