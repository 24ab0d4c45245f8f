"""Metrics of our own kind say what prometheus_client's would."""

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from runtime.telemetry.metrics import CallbackGauge, ManyHistogram

BOUNDS = (0.1, 1, 2.5)
VALUES = (0, 0.1, 0.1000001, 1, 2, 2.5, 3, 1e9)


@pytest.fixture
def histogram() -> Iterator[ManyHistogram]:
    one = ManyHistogram("for_a_test_seconds", "Some.", "stage", BOUNDS)
    yield one
    REGISTRY.unregister(one)


def test_many_values_at_once_are_what_they_are_one_by_one(histogram: ManyHistogram) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call] # as whoever serves them does
    alone, together = CollectorRegistry(), CollectorRegistry()
    usual = Histogram("for_a_test_seconds", "Some.", ["stage"], buckets=BOUNDS, registry=alone)
    for stage, values in (("a", VALUES), ("b", VALUES[:3]), ("a", VALUES[5:])):
        histogram.observe(stage, values)
        for value in values:
            usual.labels(stage).observe(value)
    together.register(histogram)
    assert generate_latest(together) == generate_latest(alone)


def test_a_gauge_is_asked_whenever_it_is_scraped() -> None:
    gauge = CallbackGauge("for_a_test_people", "Some.", ("collection",))
    try:
        assert b"for_a_test_people{" not in generate_latest()
        held: dict[tuple[str, ...], float] = {("c",): 3.0}
        gauge.source = lambda: held
        assert b'for_a_test_people{collection="c"} 3.0' in generate_latest()
        held.clear()
        assert b"for_a_test_people{" not in generate_latest()
    finally:
        REGISTRY.unregister(gauge)
