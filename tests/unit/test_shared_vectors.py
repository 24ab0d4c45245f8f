"""People with one and the same embedding: each is found, and nobody else is harder to find for it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from streams.gallery.exact import Hits
from streams.gallery.shared_vectors import SharedVectors
from tests.population import again, embeddings
from tests.unit.test_segment import LATER, THRESHOLD, exactly, found, sealed

Make = Callable[[], NDArray[np.float32]]


def test_nodes_are_the_different_embeddings_in_the_order_of_their_first_rows(embedding: Make) -> None:
    a, b, c = embedding(), embedding(), embedding()
    shared, nodes = SharedVectors.of(np.stack([b, a, b, c, a, b]))
    assert np.array_equal(nodes, np.stack([b, a, c]))
    of_nodes = Hits(np.array([7, 7, 9]), np.array([0, 2, 1]), np.array([0.1, 0.2, 0.3]))
    hits = shared.hits(of_nodes)
    assert list(zip(hits.probes.tolist(), hits.rows.tolist(), hits.distances.tolist(), strict=True)) == [
        *((7, row, 0.1) for row in (0, 2, 5)),
        (7, 3, 0.2),
        *((9, row, 0.3) for row in (1, 4)),
    ]
    assert len(shared.hits(Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))).rows) == 0


def test_a_crowd_does_not_hide_the_others() -> None:
    """With 1,000 identical points among 3,000 the densest graph lost some of the other 2,000."""
    vectors = embeddings(3000, seed=1)
    crowd = np.random.default_rng(1).choice(3000, 1000, replace=False)
    vectors[crowd] = vectors[crowd[0]]
    lone = np.setdiff1d(np.arange(3000), crowd)
    segment = sealed(vectors)
    newcomers = again(lone, seed=1)
    expected = exactly(newcomers, vectors)
    there = found(segment, newcomers)
    assert there <= expected
    assert len(there) / len(expected) >= 0.999
    assert segment.quality.recall >= 0.999
    assert segment.index.get_current_count() == 2001
    hits = segment.search(vectors[crowd[:1]], np.array([LATER]), THRESHOLD)
    assert {f"p{i}" for i in crowd} <= {member.individual_id for member in segment.members(hits.rows)}
    segment.remove_ids(f"p{i}" for i in crowd[:999])
    left = segment.search(vectors[crowd[:1]], np.array([LATER]), 0.0)
    assert [member.individual_id for member in segment.members(left.rows)] == [f"p{crowd[999]}"]
