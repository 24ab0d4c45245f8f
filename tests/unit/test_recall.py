"""A share that was measured, and between what the true one lies."""

import numpy as np
import pytest

from streams.gallery.recall import recall_of


@pytest.mark.parametrize("crowded", [False, True])
def test_nineteen_of_twenty_intervals_hold_the_true_recall(crowded: bool) -> None:
    """Probes with one pair each, or with up to 60 of which a good part is missed together or not at all."""
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        sizes = random.integers(1, 60, 400) if crowded else np.ones(2000, np.int64)
        chances = random.choice([0.5, 1.0], len(sizes), p=[0.1, 0.9]) if crowded else np.full(len(sizes), 0.95)
        probes = np.repeat(np.arange(len(sizes)), sizes)
        recall = recall_of(probes, random.random(len(probes)) < chances[probes])
        assert recall.low < recall.share < recall.high
        held += recall.low <= 0.95 <= recall.high
    assert held >= 0.92 * 400


def test_a_sample_without_a_miss_does_not_prove_that_there_is_none() -> None:
    probes = np.repeat(np.arange(100), 50)
    recall = recall_of(probes, np.ones(5000, dtype=np.bool_))
    assert (recall.share, recall.high) == (1, 1)
    assert recall.low == pytest.approx(0.963, abs=0.001)  # of 100 probes, not of 5,000 pairs
    assert recall_of(np.empty(0, np.int64), np.empty(0, np.bool_)) == (1, 0, 1)
