"""Series of the largest collections, and one for all others: thousands of them are not thousands of series. Pure."""

import heapq
from collections.abc import Callable, Iterable, Mapping

OTHERS = "(others)"  # no collection has parentheses in its name
LARGEST = 50

Combine = Callable[[Iterable[float]], float]


def least_but_zero(values: Iterable[float]) -> float:
    """The least that is not 0; 0 where all are."""
    return min((value for value in values if value), default=0)


def largest_and_others(
    values: Mapping[tuple[str, ...], float], sizes: Mapping[tuple[str, ...], float], combine: Combine
) -> dict[tuple[str, ...], float]:
    """The values of the largest, and of the others one that `combine` makes, in the place of the collection.

    Labels begin with those of `sizes`, whose first is the collection. `sizes` decides who is among the LARGEST.
    """
    if len(sizes) <= LARGEST:
        return dict(values)
    width = len(next(iter(sizes)))
    largest = set(heapq.nlargest(LARGEST, sizes, key=lambda labels: (sizes[labels], labels)))
    found: dict[tuple[str, ...], float] = {}
    others: dict[tuple[str, ...], list[float]] = {}
    for labels, value in values.items():
        if labels[:width] in largest:
            found[labels] = value
        else:
            others.setdefault((OTHERS, *labels[1:]), []).append(value)
    return found | {labels: combine(some) for labels, some in others.items()}
