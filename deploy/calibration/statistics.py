"""Thresholds, recall and false matches of embeddings whose people are known. Pure.

A false match rate (FMR) is the share of strangers' pairs within a threshold, recall that of one person's pairs. The
intervals are percentiles of a bootstrap that draws people, not pairs, with replacement: pairs of one person depend on
each other (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FMRS = (1e-3, 1e-4, 1e-5, 1e-6)
FEW_PAIRS = 10  # behind an operating point: fewer are a hint
_BLOCK = 500  # photos, compared with all others at once: 500 times all of them in memory
_DRAWS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs of photos by position, (n,) of each, with their distances."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    distances: NDArray[np.float64]

    @classmethod
    def none(cls) -> "Pairs":
        """No pairs."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def chosen(self, which: NDArray[np.intp]) -> "Pairs":
        """Some of them, by their places."""
        return Pairs(self.one[which], self.other[which], self.distances[which])

    def and_(self, more: "Pairs") -> "Pairs":
        """These, and others behind them."""
        join = np.concatenate
        return Pairs(join([self.one, more.one]), join([self.other, more.other]), join([self.distances, more.distances]))

    def nearest(self, most: int) -> "Pairs":
        """So many of them, the nearest first."""
        return self.chosen(np.argsort(self.distances, kind="stable")[:most])


@dataclass(frozen=True, slots=True)
class Interval:
    """A share, with its interval of 95 % confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured at a false match rate: `pairs` strangers lie within the threshold.

    `groups` has the false match rate within each group of people.
    """

    fmr: float
    threshold: float
    recall: Interval
    pairs: int
    groups: dict[str, Interval]


class KnownPeople:
    """Photos of known people: embeddings (n, d), people (n,) as numbers, groups (n,) as names, "" for none."""

    def __init__(self, embeddings: NDArray[np.float32], people: Sequence[str], groups: Sequence[str]) -> None:
        self.embeddings = embeddings.astype(np.float32)
        self.names, self.people = np.unique(np.array(people, dtype=object).astype(str), return_inverse=True)
        self.groups = np.array(groups, dtype=object).astype(str)
        self._counts = np.bincount(self.people, minlength=len(self.names)).astype(np.float64)
        self.strangers = int(_between(self._counts))
        self.same, self.nearest = self._compared()

    def measured(self, fmr: float) -> Measured | None:
        """The operating point of a false match rate; None where there are too few strangers to measure it."""
        if fmr * self.strangers < 1:
            return None
        threshold, recall = self._at(fmr, np.ones(len(self.names)))
        people = len(self.names)
        draws = np.random.default_rng(1).multinomial(people, np.full(people, 1 / people), _DRAWS)
        drawn = [self._at(fmr, weights.astype(np.float64))[1] for weights in draws]
        within = int((self.nearest.distances <= threshold).sum())
        groups = {name: self._of_group(name, threshold, draws) for name in sorted(set(self.groups) - {""})}
        return Measured(fmr, threshold, _interval(recall, drawn), within, groups)

    def people_needed(self, fmr: float) -> int:
        """How many people, with as many photos each, would have strangers enough for FEW_PAIRS at a rate."""
        photos = len(self.people) / len(self.names)
        return math.ceil(math.sqrt(2 * FEW_PAIRS / fmr) / photos)

    def _at(self, fmr: float, weights: NDArray[np.float64]) -> tuple[float, float]:
        """The threshold and the recall where each person counts so many times."""
        drawn = np.cumsum(weights[self.people[self.nearest.one]] * weights[self.people[self.nearest.other]])
        place = int(np.searchsorted(drawn, fmr * _between(self._counts * weights), side="right")) - 1
        threshold = float(self.nearest.distances[max(place, 0)])
        counted = weights[self.people[self.same.one]]
        found = counted[self.same.distances <= threshold].sum()
        return threshold, float(found / max(counted.sum(), 1e-12))

    def _of_group(self, name: str, threshold: float, draws: NDArray[np.int64]) -> Interval:
        """The share of strangers' pairs within one group that lie within a threshold."""
        members = np.bincount(self.people, weights=self.groups == name, minlength=len(self.names))
        near = self.nearest.distances <= threshold
        one, other = self.nearest.one[near], self.nearest.other[near]
        inside = (self.groups[one] == name) & (self.groups[other] == name)
        a, b = self.people[one[inside]], self.people[other[inside]]

        def share(weights: NDArray[np.float64]) -> float:
            return float((weights[a] * weights[b]).sum() / max(_between(members * weights), 1e-12))

        return _interval(share(np.ones(len(self.names))), [share(one.astype(np.float64)) for one in draws])

    def _compared(self) -> tuple[Pairs, Pairs]:
        """All pairs of one person, and the nearest strangers: as many as the largest rate asks for, twice over."""
        most = int(2 * FMRS[0] * self.strangers) + 1
        same, near = Pairs.none(), Pairs.none()
        for pairs in self._blocks():
            are_same = self.people[pairs.one] == self.people[pairs.other]
            same = same.and_(pairs.chosen(np.flatnonzero(are_same)))
            near = near.and_(pairs.chosen(np.flatnonzero(~are_same))).nearest(most)
        return same.nearest(len(same.distances)), near

    def _blocks(self) -> Iterator[Pairs]:
        """Every pair once, in blocks, in no order."""
        vectors = self.embeddings
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
        for begin in range(0, len(vectors), _BLOCK):
            block, rest = vectors[begin : begin + _BLOCK], vectors[begin:]
            products = (block @ rest.T).astype(np.float64)
            squared = squares[begin : begin + _BLOCK, np.newaxis] + squares[begin:] - 2 * products
            one, other = np.triu_indices(len(block), 1, len(rest))
            yield Pairs(one + begin, other + begin, np.sqrt(np.maximum(squared[one, other], 0)))


def _between(counts: NDArray[np.float64]) -> float:
    """How many pairs of photos are of two people, by the photos of each."""
    return float((counts.sum() ** 2 - (counts**2).sum()) / 2)


def _interval(value: float, drawn: Sequence[float]) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, min(float(low), value), max(float(high), value))
