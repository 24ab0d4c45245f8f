"""Thresholds belong to encoders; where none is set they follow from the review budget."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.encoder.process import Pool
from consumers.encoder.worker import start_pool
from consumers.faces.networks.weights import WeightsError
from schemas.encoders.known import NoSuchEncoderError, shipped
from schemas.encoders.manifest import OperatingPoint
from schemas.settings import CollectionSettings, Settings
from schemas.thresholds import (
    FEWEST_PAIRS,
    LOOSEST_FMR,
    NoThresholdError,
    Thresholds,
    fmr_at,
    fmr_for,
    measured_points,
    threshold_at,
)
from tests.networks import write_own

DLIB, SFACE = shipped("face_recognition").id, shipped("sface").id
budgets = st.floats(0.001, 1000)
crowds = st.integers(0, 10**8)


def point(fmr: float, threshold: float, pairs: int = 100) -> OperatingPoint:
    return OperatingPoint(
        fmr=fmr, threshold=threshold, recall=0.9, recall_low=0.8, recall_high=1, pairs=pairs, photos="of a test"
    )


@st.composite
def measured(draw: st.DrawFn) -> tuple[OperatingPoint, ...]:
    """The operating points of some encoder, of which one at least is of 1e-4 or less."""
    rates = draw(st.lists(st.integers(1, 700), min_size=1, max_size=6, unique=True))
    apart = draw(st.lists(st.integers(2000, 19_000), min_size=len(rates), max_size=len(rates), unique=True))
    points = [
        point(10 ** (-one / 100), threshold / 10_000)
        for one, threshold in zip(sorted(rates), sorted(apart, reverse=True), strict=True)
    ]
    return measured_points([*points, *([point(1e-8, 0.1)] if points[-1].fmr > LOOSEST_FMR else [])])


def found(**settings: object) -> Thresholds:
    return Thresholds(Settings(_env_file=None, **settings))  # type: ignore[arg-type] # of many types


@given(budgets, crowds)
def test_no_more_strangers_are_met_than_the_budget_has(budget: float, living: int) -> None:
    assert fmr_for(budget, living) * living <= budget * (1 + 1e-9)


@given(budgets, crowds)
def test_the_rate_is_no_less_than_half_of_what_the_budget_allows(budget: float, living: int) -> None:
    assert fmr_for(budget, living) >= min(LOOSEST_FMR, budget / max(living, 1) / 2) * (1 - 1e-9)


@given(budgets, crowds, crowds)
def test_the_more_people_the_less_is_the_rate_and_it_moves_when_they_have_doubled(
    budget: float, one: int, other: int
) -> None:
    few, many = sorted((one, other))
    ratio = fmr_for(budget, few) / fmr_for(budget, many)
    assert ratio in {2**n for n in range(60)}
    assert ratio <= 2 or many > 2 * few


def test_the_steps_of_a_budget_of_one() -> None:
    assert [fmr_for(1, people) for people in (0, 10_000, 10_001, 20_000, 20_001, 40_001)] == [
        1e-4,
        1e-4,
        5e-5,
        5e-5,
        2.5e-5,
        1.25e-5,
    ]


@given(measured(), budgets, crowds)
def test_a_threshold_is_within_what_was_measured_and_no_looser_than_at_1e_4(
    points: tuple[OperatingPoint, ...], budget: float, living: int
) -> None:
    threshold = threshold_at(points, fmr_for(budget, living))
    assert points[-1].threshold <= threshold <= points[0].threshold
    assert threshold <= threshold_at(points, LOOSEST_FMR)
    assert threshold <= min((one.threshold for one in points if one.fmr >= LOOSEST_FMR), default=2)


@given(measured(), budgets, crowds, crowds)
def test_a_threshold_is_never_looser_among_more_people(
    points: tuple[OperatingPoint, ...], budget: float, one: int, other: int
) -> None:
    few, many = (threshold_at(points, fmr_for(budget, living)) for living in sorted((one, other)))
    assert few >= many


@given(measured())
def test_at_an_operating_point_its_own_threshold_and_rate_come_out(points: tuple[OperatingPoint, ...]) -> None:
    for one in points:
        assert threshold_at(points, one.fmr) == one.threshold
        assert fmr_at(points, one.threshold) == pytest.approx(one.fmr)


def test_between_two_points_it_is_linear_in_the_logarithm_and_beyond_them_nothing_is_known() -> None:
    points = measured_points([point(1e-4, 1.0), point(1e-6, 0.8)])
    assert threshold_at(points, 1e-5) == pytest.approx(0.9)
    assert fmr_at(points, 0.9) == pytest.approx(1e-5)
    assert threshold_at(points, 1e-9) == 0.8
    assert (fmr_at(points, 0.79), fmr_at(points, 1.01)) == (None, None)


def test_a_point_with_few_pairs_behind_it_is_a_hint_and_no_point() -> None:
    points = [point(1e-4, 1.0), point(1e-5, 0.9, FEWEST_PAIRS - 1)]
    assert [one.fmr for one in measured_points(points)] == [1e-4]
    assert measured_points([point(1e-3, 1.0), point(1e-4, 0.9, FEWEST_PAIRS - 1)]) == (), "1e-3 takes in strangers"


def test_the_shipped_encoders_have_thresholds_of_their_own() -> None:
    assert [found().of("c", DLIB, people) for people in (1, 10_000, 10_001, 10**7)] == [0.475, 0.475, 0.4566, 0.414]
    assert [found().of("c", SFACE, people) for people in (1, 10_000, 10**7)] == [1.081, 1.081, 1.031]
    assert found(candidates_per_newcomer=10).of("c", DLIB, 100_000) == 0.475


def test_a_plain_threshold_is_of_one_encoder_and_goes_before_the_budget() -> None:
    by_name, by_id = found(thresholds={"face_recognition": 0.4}), found(thresholds={DLIB: 0.4})
    for one in (by_name, by_id):
        assert (one.of("c", DLIB, 1), one.of("c", DLIB, 10**7), one.of("c", SFACE, 1)) == (0.4, 0.4, 1.081)


def test_what_is_set_for_a_collection_goes_before_what_is_set_for_all() -> None:
    own = {
        "plain": CollectionSettings(thresholds={"face_recognition": 0.3}),
        "budget": CollectionSettings(candidates_per_newcomer=0.1),
        "neither": CollectionSettings(routing="gpu"),
    }
    general = found(thresholds={"face_recognition": 0.4}, collections=own)
    assert [general.of(name, DLIB, 1001) for name in ("plain", "budget", "neither", "c")] == [0.3, 0.4566, 0.4, 0.4]
    assert [general.expected(name, DLIB, 1001) for name in ("budget", "neither")] == [pytest.approx(0.1, rel=0.5), 1]


def test_a_supposed_budget_goes_before_all_that_is_set_where_a_threshold_follows_from_it() -> None:
    settings = Settings(_env_file=None, thresholds={"face_recognition": 0.3, "mine": 0.3})
    supposed = Thresholds(settings, 0.1)
    assert [supposed.of("c", encoder, 1001) for encoder in (DLIB, "mine")] == [0.4566, 0.3]


def test_how_many_strangers_are_expected_is_known_where_it_was_measured_alone() -> None:
    assert found().strangers("c", DLIB, 5000) == pytest.approx(0.5)
    assert found().strangers("c", DLIB, 10**6) == pytest.approx(10), "beyond the last point the budget is not kept"
    assert found(thresholds={DLIB: 0.6}).strangers("c", DLIB, 5000) is None
    assert found(thresholds={"mine": 0.6}).strangers("c", "mine", 5000) is None


def test_an_encoder_without_points_and_threshold_is_refused_with_what_to_type() -> None:
    assert found().of("c", "mine", 1) is None
    with pytest.raises(NoThresholdError, match=r"encoder calibrate.*FACEMATCH_THRESHOLDS='\{\"mine\": …\}'"):
        found().check("mine")
    with_threshold = found(thresholds={"mine": 0.9})
    with_threshold.check("mine")
    assert with_threshold.of("c", "mine", 1) == 0.9
    found().check("sface")


def test_a_name_that_is_nearly_an_encoders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSuchEncoderError, match=r"FACEMATCH_THRESHOLDS: .* did you mean face_recognition\?"):
        found(thresholds={"face_recogniton": 0.4}, encoders=tmp_path)
    own = {"camp-a": CollectionSettings(thresholds={"sfase": 0.4})}
    with pytest.raises(NoSuchEncoderError, match="FACEMATCH_COLLECTIONS camp-a"):
        found(collections=own, encoders=tmp_path)


def test_no_pool_is_started_for_an_encoder_without_a_threshold(tmp_path: Path) -> None:
    (tmp_path / "encoders" / "own").mkdir(parents=True)
    (tmp_path / "encoders" / "own" / "manifest.toml").write_text(write_own(tmp_path / "mine").read_text())
    settings = Settings(_env_file=None, encoders=tmp_path / "encoders", model_cache=tmp_path)
    with pytest.raises(NoThresholdError, match="encoder own has no threshold"):
        start_pool(settings, Pool.CPU, 1, "own")
    with pytest.raises(WeightsError):  # which come next
        start_pool(settings.model_copy(update={"thresholds": {"own": 1.0}}), Pool.CPU, 1, "own")
