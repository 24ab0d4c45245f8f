"""A replay that is asked for somebody unknown sends nothing, of those neither that it was asked for beside them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from deploy.replay import run as replay
from deploy.replay.bar import Bar
from producers.replay.chooser import Chosen
from producers.replay.plan import ReplayPlan
from producers.replay.selection import Selection, SelectionError
from producers.replay.survey import Survey
from schemas.envelope import StoredRecord
from schemas.settings import Settings


class Known:
    """Stands in for a survey that finds one individual of two."""

    def chosen(self, _what: str) -> Iterator[Chosen]:
        yield Chosen(StoredRecord("individuals", b"c/a", b"{}", (), 0, 0, 0), "IndividualCreated", "c", "a", 1)
        raise SelectionError("nothing there is about individual typo")


def test_nothing_is_sent_where_one_of_the_individuals_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def send(*_: Any) -> None:
        pytest.fail("something is sent")

    monkeypatch.setattr(replay, "_send", send)
    plan = ReplayPlan(
        replay_id="r1",
        began_at=datetime.now(UTC),
        selection=Selection(individuals=("a", "typo")),
        source={},
        digest=None,
        ends={},
    )
    settings, speed = Settings(_env_file=None, data_folder=tmp_path), replay.Speed(at_once=True)
    with pytest.raises(SelectionError, match="typo"):
        replay._go(Console(), settings, plan, cast(Survey, Known()), speed, set(), cast(Bar, None))
    assert list(tmp_path.iterdir()) == [], "nor is there anything to go on with"
