"""The reports of `facematch replay`: what would be sent and what would change by it, and what was sent."""

from collections import Counter
from datetime import timedelta
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from producers.replay.chooser import ChosenEvent
from producers.replay.outcomes import NO_ANSWER, Outcomes
from producers.replay.sending import Sent
from producers.replay.survey import Survey
from schemas.events.base import individual_key
from schemas.events.encodings import EncodingComputed, EncodingErased
from schemas.events.registrations import IndividualDeleted
from schemas.topics import INDIVIDUALS

_FIRST, _MOST_ROWS = 5, 20
_ERASURES = (IndividualDeleted.__name__, EncodingErased.__name__)


class ReplayRow(NamedTuple):
    """The fields of an event that a report needs."""

    type: str
    collection: str
    individual_id: str
    revision: int

    @property
    def key(self) -> str:
        return individual_key(self.collection, self.individual_id)


class Summary:
    """Collects the events that are chosen, and prints them by type, collection and outcome so far."""

    def __init__(self) -> None:
        self.events: list[ReplayRow] = []
        self._first: list[str] = []

    def add(self, one: ChosenEvent) -> None:
        event = ReplayRow(one.type, one.collection, one.individual_id, one.revision)
        self.events.append(event)
        if len(self._first) < _FIRST:
            self._first.append(f"{event.key}, revision {event.revision}, at {one.record.position}")

    def to_encode(self) -> set[str]:
        """The keys of the individuals that would be encoded again."""
        is_encoded = (*_ERASURES, EncodingComputed.__name__)
        return {event.key for event in self.events if event.type not in is_encoded}

    def print(self, console: Console, outcomes: Outcomes, origin: str) -> None:
        """Print the events, and what would change, given the outcomes so far."""
        to_encode = self.to_encode()
        so_far = [outcomes.of(one.key, one.revision) if one.key in to_encode else "" for one in self.events]
        if self.events:
            console.print(_table(self.events, so_far))
        console.print(f"chosen from {escape(origin)}: [bold]{len(self.events)}[/]; nothing was sent", soft_wrap=True)
        for line in self._first:
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        if len(self.events) > _FIRST:
            console.print(f"  and {len(self.events) - _FIRST} more")
        for line in _changes(self.events, so_far):
            console.print(line, soft_wrap=True)


def print_left_out(console: Console, survey: Survey) -> None:
    """Print how many events are not sent though they were asked for, by reason."""
    counts = survey.chooser.left_out + Counter({"encoded or erased since": survey.encoded_since})
    for reason, count in counts.items():
        console.print(f"left out: {count} {reason}")
    if survey.missing:
        console.print(
            f"[yellow]{survey.missing} more were meant, whose events Kafka no longer has[/] (it keeps them "
            f"{(INDIVIDUALS.retention or timedelta()).days} days): have the registration system send them again",
            soft_wrap=True,
        )


def print_sent(console: Console, replay_id: str, sent: Sent) -> bool:
    """Print the result of a replay, and how to resume it. Returns whether all was sent."""
    rate = sent.acknowledged / sent.seconds if sent.seconds else 0.0
    console.print(f"{sent.acknowledged} sent and acknowledged, {rate:.0f}/s")
    for position, reason in sent.refused:
        console.print(f"[bold red]not sent:[/] {position}: Kafka does not take it: {escape(reason)}", soft_wrap=True)
    if sent.stopped:
        unknown = f"; of {sent.unknown} more it is not known whether Kafka has them" if sent.unknown else ""
        console.print(f"stopped{unknown}. To go on: facematch replay --resume {replay_id}", soft_wrap=True)
    return not sent.stopped and not sent.refused


def _table(events: list[ReplayRow], so_far: list[str]) -> Table:
    counts = Counter((event.type, event.collection, outcome) for event, outcome in zip(events, so_far, strict=True))
    table = Table("event", title="what would be sent", title_justify="left")
    table.add_column("collection", overflow="fold")
    table.add_column("so far", overflow="fold")
    table.add_column("events", justify="right")
    for (kind, collection, outcome), count in counts.most_common(_MOST_ROWS):
        table.add_row(kind, escape(collection), outcome, str(count))
    if len(counts) > _MOST_ROWS:
        rest = sum(count for _, count in counts.most_common()[_MOST_ROWS:])
        table.add_row("others", f"{len(counts) - _MOST_ROWS} more lines", "", str(rest))
    return table


def _changes(events: list[ReplayRow], so_far: list[str]) -> list[str]:
    counts = Counter(_change(event, outcome) for event, outcome in zip(events, so_far, strict=True))
    return [f"{count}: {change}" for change, count in counts.items()]


def _change(event: ReplayRow, outcome: str) -> str:
    if event.type in _ERASURES:
        return "erased once more: nothing changes"
    if event.type == EncodingComputed.__name__:
        return "compared again: what was missed is found, and nothing else changes"
    if outcome == NO_ANSWER:
        return "without an answer so far, which they get; it may be on its way"
    if outcome.startswith("rejected"):
        return "rejected, and tried again"
    if outcome.startswith("encoded"):
        return "encoded again: nothing changes unless the encoder, or a setting, is another by now"
    return "of no account any more, since something later is: nothing changes"
