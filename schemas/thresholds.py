"""How far apart the embeddings of a finding may be: by encoder, and by how many people a collection has. Pure.

A threshold belongs to an encoder. Where none is set, it follows from a review budget, which is how many strangers a
newcomer may meet on average among N people: their rate is to be at most budget / N (false match rate, FMR). N counts
in steps, so that the threshold stands still between two doublings. Between two operating points of the encoder the
threshold is linear in the logarithm of the rate; beyond them nothing was measured, and the outermost one holds.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import pairwise

from schemas.encoders.known import NoSuchEncoderError, known_encoders
from schemas.encoders.manifest import OperatingPoint
from schemas.faults import UserFault
from schemas.settings import Settings

LOOSEST_FMR = 1e-4  # beyond it a small gallery would take in strangers
FEWEST_PAIRS = 10  # behind an operating point: of fewer it is no more than a hint
_DIGITS = 4  # of a threshold that lies between two operating points

ThresholdFor = Callable[[str, str, int], float | None]
"""(collection, encoder's id, living people of the whole collection) → threshold; None where the encoder has none."""


class NoThresholdError(UserFault):
    """An encoder has no threshold, and no operating points from which one follows."""


def fmr_for(budget: float, living: int) -> float:
    """The false match rate at which a newcomer meets at most `budget` strangers, in steps of a half from 1e-4 down.

    `living`: the people of the collection. Up to budget / 1e-4 of them it is 1e-4; up to twice as many it is half of
    that; and so on.
    """
    fmr, most = LOOSEST_FMR, budget / LOOSEST_FMR
    while living > most:
        fmr, most = fmr / 2, most * 2
    return fmr


def measured_points(points: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """Those that thresholds may follow from, the largest rate first: none if none is of 1e-4 or less."""
    enough = sorted((one for one in points if one.pairs >= FEWEST_PAIRS), key=lambda one: one.fmr, reverse=True)
    return tuple(enough) if enough and enough[-1].fmr <= LOOSEST_FMR else ()


def threshold_at(points: Sequence[OperatingPoint], fmr: float) -> float:
    """The threshold at a false match rate, by `measured_points`: that of the outermost one beyond them."""
    if fmr >= points[0].fmr:
        return points[0].threshold
    for wider, narrower in pairwise(points):
        if fmr > narrower.fmr:
            share = math.log(fmr / narrower.fmr) / math.log(wider.fmr / narrower.fmr)
            threshold = narrower.threshold + share * (wider.threshold - narrower.threshold)
            return min(max(round(threshold, _DIGITS), narrower.threshold), wider.threshold)
    return points[-1].threshold


def fmr_at(points: Sequence[OperatingPoint], threshold: float) -> float | None:
    """The false match rate at a threshold, by `measured_points`; None beyond them, where none was measured."""
    for wider, narrower in pairwise(points):
        if narrower.threshold <= threshold <= wider.threshold:
            share = (threshold - narrower.threshold) / (wider.threshold - narrower.threshold)
            return narrower.fmr * math.exp(share * math.log(wider.fmr / narrower.fmr))
    return next((one.fmr for one in points if one.threshold == threshold), None)


class Thresholds:
    """The thresholds of a deployment. `Thresholds.of` is a `ThresholdFor`.

    What is set for a collection goes before what is set for all, and a plain threshold before a review budget.
    """

    def __init__(self, settings: Settings, supposed_budget: float | None = None) -> None:
        """Reads the manifests of all encoders. Raises EncoderManifestError, and NoSuchEncoderError for a name.

        A supposed budget goes before all that is set, where a threshold follows from it.
        """
        known = known_encoders(settings.encoders_folder)
        self._ids = {name: manifest.id for name, manifest in known.items()}
        self._points = {one.id: points for one in known.values() if (points := measured_points(one.points()))}
        self._budget, self._supposed = settings.candidates_per_newcomer, supposed_budget
        self._plain = self._by_id(settings.thresholds, "FACEMATCH_THRESHOLDS")
        self._own = {
            name: (self._by_id(own.thresholds, f"FACEMATCH_COLLECTIONS {name}"), own.candidates_per_newcomer)
            for name, own in settings.collections.items()
            if own.thresholds or own.candidates_per_newcomer is not None
        }
        self._by_budget = cache(self._followed)

    def of(self, collection: str, encoder: str, living: int) -> float | None:
        """The threshold of an encoder, by its id, in a collection of so many living people; None where it has none."""
        own, budget = self._own.get(collection, ({}, None))
        if self._supposed is not None and encoder in self._points:
            return self._by_budget(encoder, fmr_for(self._supposed, living))
        if encoder in own:
            return own[encoder]
        if budget is None and encoder in self._plain:
            return self._plain[encoder]
        if encoder not in self._points:
            return self._plain.get(encoder)
        return self._by_budget(encoder, fmr_for(budget or self._budget, living))

    def strangers(self, collection: str, encoder: str, living: int) -> float | None:
        """How many strangers a newcomer meets on average at the threshold; None where nobody has measured that."""
        threshold = self.of(collection, encoder, living)
        fmr = None if threshold is None else fmr_at(self._points.get(encoder, ()), threshold)
        return None if fmr is None else fmr * living

    def expected(self, collection: str, encoder: str, living: int) -> float:
        """How many candidates a newcomer should have at most, on average: the budget, or more where it is not kept."""
        _, budget = self._own.get(collection, ({}, None))
        return max(budget or self._budget, self.strangers(collection, encoder, living) or 0)

    def check(self, encoder: str) -> None:
        """Raise NoThresholdError where an encoder, of that name or id, has no threshold."""
        encoder_id = self._ids.get(encoder, encoder)
        if encoder_id not in self._points and encoder_id not in self._plain:
            raise NoThresholdError(no_threshold(next((n for n, one in self._ids.items() if one == encoder), encoder)))

    def _followed(self, encoder: str, fmr: float) -> float:
        return threshold_at(self._points[encoder], fmr)

    def _by_id(self, by_name: dict[str, float], where: str) -> dict[str, float]:
        for name in by_name.keys() - self._ids.keys() - set(self._ids.values()):
            if near := get_close_matches(name, [*self._ids, *self._ids.values()], n=1):
                raise NoSuchEncoderError(f"{where}: no encoder is called {name!r}: did you mean {near[0]}?")
        return {self._ids.get(name, name): threshold for name, threshold in by_name.items()}


def no_threshold(encoder: str) -> str:
    """What to type where an encoder has no threshold."""
    return (
        f"encoder {encoder} has no threshold, nor operating points from which one follows: "
        f"`facematch encoder calibrate FOLDER` measures them, or set FACEMATCH_THRESHOLDS='{{\"{encoder}\": …}}'"
    )
