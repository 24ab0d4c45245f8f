"""What compactions certified is looked for in Postgres; one that is away ends nobody, and is seen to be away."""

import pytest
from prometheus_client import REGISTRY

from consumers.sink.gauges import TableGauges
from runtime.servers.postgres import postgres_engine
from schemas.settings import Settings


def retries() -> float:
    return REGISTRY.get_sample_value("facematch_server_retries_total", {"server": "postgres"}) or 0


def test_a_postgres_that_is_away_is_counted_though_nothing_is_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[None] = []
    monkeypatch.setattr("runtime.telemetry.health.HEALTH.still_waiting", lambda: said.append(None))
    before = retries()
    certified = TableGauges(postgres_engine(Settings(_env_file=None, postgres="postgresql://u@127.0.0.1:1/none")))
    certified.refresh()
    certified.refresh()  # not again at once
    assert retries() - before == len(said) == 1
