"""The share of pairs that is found, and its confidence interval. Pure."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Recall(NamedTuple):
    """The share of pairs that are found, and its 95 % confidence interval."""

    share: float
    low: float
    high: float


def recall_of(probes: NDArray[np.int64], hit: NDArray[np.bool_]) -> Recall:
    """The recall of pairs, given the probe of each, (n,) int64, and whether it was found, (n,) bool.

    The share is that of all pairs, or the mean share of the probes, whichever is less: the many pairs of a crowd would
    hide the few of others. The interval is Wilson's (1927), for as many independent observations as have the variance
    observed between probes (Kish's effective sample size: the pairs of one probe are missed together); where nothing
    was missed, for as many as there are probes with pairs.
    """
    expected = np.bincount(probes)
    found = np.bincount(probes, weights=hit)[expected > 0]
    expected = expected[expected > 0]
    count = len(expected)
    if not count:
        return Recall(1.0, 0.0, 1.0)
    by_pair = found.sum() / expected.sum(), (found - found.sum() / expected.sum() * expected) / expected.mean()
    shares = found / expected
    by_probe = shares.mean(), shares - shares.mean()
    share, residuals = min(by_pair, by_probe, key=lambda one: one[0])
    variance = float((residuals**2).sum()) / (count * max(count - 1, 1))
    observations = min(expected.sum(), share * (1 - share) / variance) if variance else count
    return Recall(float(share), *_wilson(float(share), float(observations)))


def _wilson(share: float, observations: float) -> tuple[float, float]:
    """https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval"""
    z = 1.959964
    middle = (share + z**2 / (2 * observations)) / (1 + z**2 / observations)
    half = z / (1 + z**2 / observations) * (share * (1 - share) / observations + z**2 / (4 * observations**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
