"""Thresholds and rates are those that counting every pair gives; what cannot be measured is not made up."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.calibration.measuring import FolderError, people_in
from deploy.calibration.statistics import KnownPeople

PEOPLE, PHOTOS = 60, 3


def sample(seed: int = 1, spread: float = 0.25) -> tuple[KnownPeople, NDArray[np.float32], list[str], list[str]]:
    """People as points in 16 dimensions, and photos around them; every third of one group."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(PEOPLE, 16)), PHOTOS, axis=0)
    vectors = (centres + spread * random.normal(size=centres.shape)).astype(np.float32)
    people = [f"p{number // PHOTOS}" for number in range(len(vectors))]
    groups = ["g" if (number // PHOTOS) % 3 == 0 else "" for number in range(len(vectors))]
    return KnownPeople(vectors, people, groups), vectors, people, groups


def test_an_operating_point_is_what_counting_every_pair_gives() -> None:
    found, vectors, people, groups = sample()
    pairs = list(itertools.combinations(range(len(vectors)), 2))
    distance = {pair: float(np.linalg.norm(vectors[pair[0]] - vectors[pair[1]])) for pair in pairs}
    same = [distance[a, b] for a, b in pairs if people[a] == people[b]]
    strangers = sorted(distance[a, b] for a, b in pairs if people[a] != people[b])
    assert (found.strangers, len(found.same.distances)) == (len(strangers), len(same))
    measured = found.measured(1e-3)
    assert measured is not None
    count = int(1e-3 * len(strangers))
    assert measured.threshold == pytest.approx(strangers[count - 1], abs=1e-5)
    assert measured.pairs == count
    assert measured.recall.value == pytest.approx(np.mean([one <= measured.threshold for one in same]))
    inside = [distance[a, b] for a, b in pairs if people[a] != people[b] and groups[a] == groups[b] == "g"]
    assert measured.groups["g"].value == pytest.approx(np.mean([one <= measured.threshold for one in inside]))
    for share in (measured.recall, measured.groups["g"]):
        assert share.low <= share.value <= share.high


def test_the_nearest_strangers_and_the_farthest_of_one_person_come_first() -> None:
    found, *_ = sample()
    for pairs in (found.same, found.nearest):
        assert (np.diff(pairs.distances) >= 0).all()
    assert (found.people[found.nearest.one] != found.people[found.nearest.other]).all()


def test_an_interval_holds_the_truth_of_another_sample_about_as_often_as_it_must() -> None:
    truth = np.mean([found.recall.value for seed in range(20) if (found := sample(seed, 1.2)[0].measured(1e-3))])
    within = 0
    for seed in range(20, 40):
        found = sample(seed, 1.2)[0].measured(1e-3)
        assert found is not None
        within += int(found.recall.low <= truth <= found.recall.high)
    assert within >= 14


def test_what_these_photos_cannot_show_is_not_made_up() -> None:
    found, *_ = sample()
    assert found.measured(1e-6) is None
    assert found.people_needed(1e-6) > 1000


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([], "0 people"),
        (["a/1.jpg", "a/2.jpg"], "1 people"),
        (["1.jpg", "2.jpg"], "0 people"),
        (["a/1.jpg", "b/2.jpg"], "nobody has two photos"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "people.csv:person,group\nc,g"], "names nobody"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "people.csv:who,what\na,g"], "its first line"),
    ],
)
def test_a_folder_that_shows_nothing_is_refused(tmp_path: Path, files: list[str], why: str) -> None:
    for name in files:
        path, _, content = name.partition(":")
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    with pytest.raises(FolderError, match=why):
        people_in(tmp_path)
