"""What `facematch status` prints where a newcomer meets far more strangers than expected."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from deploy.status.workers import GalleryStatus

# As in deploy/monitoring/prometheus/alerts.yaml.
MANY = 3  # times what was expected
_FEWEST_NEWCOMERS, _FEWEST_PAIRS = 20, 10
_SEE = "see docs/runbook.md, {}"


def too_many_strangers(galleries: Iterable[GalleryStatus], different: Mapping[str, int]) -> Iterator[str]:
    """A line for each collection whose newcomers, or reviewers, meet more than three times what was expected.

    `different`: pairs that reviewers decided to be two people, by collection.
    """
    scopes = defaultdict(list)
    strangers: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for one in (gallery.vitals for gallery in galleries):
        scopes[one.collection, one.encoder].append(one)
        if one.strangers is not None:
            strangers[one.collection][one.encoder] = max(one.strangers, strangers[one.collection].get(one.encoder, 0))
    for (collection, encoder), shards in scopes.items():
        counted = [one for one in shards if one.newcomers >= _FEWEST_NEWCOMERS]
        had, expected = (
            sum(getattr(one, count) / one.newcomers for one in counted) for count in ("candidates", "expected")
        )
        if counted and had > MANY * expected:
            yield (
                f"{collection}: a newcomer has {had:.1f} candidates by {encoder}, and should have {expected:.1f} at "
                f"most: {_SEE.format('Candidates many')}"
            )
    for collection, pairs in different.items():
        expected = sum(strangers[collection].values())
        if strangers[collection] and pairs >= _FEWEST_PAIRS and pairs > MANY * expected:
            yield (
                f"{collection}: reviewers called {pairs} pairs different, and {expected:.0f} pairs of strangers were "
                f"expected: {_SEE.format('Different many')}"
            )
