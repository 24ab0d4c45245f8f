"""How many others lie within a threshold, estimated from a sample."""

import numpy as np

from schemas.faults import UserFault
from streams.gallery.exact import VectorRows, half_norms, search_block

_REACH_SAMPLE = 10_000  # rows, searched by a hundredth of them: a million pairs, milliseconds
_MOST_IN_REACH = 5_000  # on average: of a million people 2.5 billion pairs, which no memory holds


def others_in_reach(rows: VectorRows, threshold: float) -> float:
    """The average number of others within the threshold of one of `rows`, estimated from a sample."""
    random = np.random.default_rng(len(rows.ids))
    some = rows.vectors[random.choice(len(rows.ids), min(len(rows.ids), _REACH_SAMPLE), replace=False)]
    probes = some[: max(1, _REACH_SAMPLE // 100)]
    hits = search_block(probes, some, half_norms(some), threshold)
    return (len(hits.rows) / len(probes) - 1) * len(rows.ids) / len(some)


class TooManyPairsError(UserFault):
    """There are more pairs at a threshold than can be listed. The text says how many."""


def check_reach(threshold: float, others: float) -> None:
    """Raise TooManyPairsError where the average number of others within the threshold is too large."""
    if others > _MOST_IN_REACH:
        raise TooManyPairsError(
            f"at a threshold of {threshold} everyone has about {others:.0f} others in reach, too many to list; "
            "suppose a lower one"
        )
