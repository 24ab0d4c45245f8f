"""What is forgotten when a column or a topic is added is named here, before it survives an erasure or is lost."""

from datetime import timedelta
from itertools import chain

import pytest

from consumers.sink.rows import rows_of
from schemas.envelope import decode
from schemas.events.base import Event
from schemas.generate import examples
from schemas.tables import column_groups, individuals
from schemas.topics import CONSUMER_GROUPS, DECISIONS, DUPLICATES, ENCODINGS, TOPICS, Topic


def test_every_column_of_an_individual_has_a_group_which_an_erasure_empties() -> None:
    without = [one.name for one in individuals.columns if not one.primary_key and "group" not in one.info]
    assert not without, f"what stands in {without} would survive an erasure: name the group in `info`"
    assert set(chain(*column_groups().values())) == {one.name for one in individuals.columns if not one.primary_key}


def test_the_sink_writes_every_column_of_every_group() -> None:
    rows = rows_of([(decode(record), 1) for record in examples().values()]).individuals
    written = {guard: set(row) - {"collection", "individual_id"} for guard, (row, *_) in rows.items()}
    assert written == {guard: set(columns) for guard, columns in column_groups().items()}


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic.carries], ids=lambda topic: topic.name)
def test_of_every_topic_somebody_who_reads_it_writes_the_dead_letters(topic: Topic[Event]) -> None:
    readers = [group.name for group in CONSUMER_GROUPS if topic in group.reads]
    assert topic.letters_by in readers, f"what cannot be read on {topic.name} would vanish without a letter"


@pytest.mark.parametrize("topic", [ENCODINGS, DUPLICATES, DECISIONS], ids=lambda topic: topic.name)
def test_what_a_stale_record_hides_is_kept_for_a_day(topic: Topic[Event]) -> None:
    """By then the right record was published behind it: Kafka's compaction never keeps the stale one alone."""
    assert int(topic.config["min.compaction.lag.ms"]) >= timedelta(days=1) / timedelta(milliseconds=1)
    assert int(topic.config["max.compaction.lag.ms"]) > int(topic.config["min.compaction.lag.ms"])
