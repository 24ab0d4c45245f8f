"""What `facematch dead-letters` and `facematch status` print of letters."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table

from deploy.letters.box import FiledLetter, LetterFilter, read_all
from deploy.letters.redrive import Verdict
from deploy.printable import escaped, printable
from runtime.servers.log import TopicLog
from schemas.letters import Letter, removed_records
from schemas.settings import Settings
from schemas.topics import DEAD_LETTERS

_SHOWN = 2000  # bytes of a letter, on a terminal
_MOST_LISTED = 50
_MOST_COUNTED = 1000  # records: each may be a photo


def print_letters(console: Console, letters: Sequence[FiledLetter], limit: int, as_json: bool) -> None:
    """The latest of them as a table, or a line each as JSON."""
    latest = letters[-limit:]
    if as_json:
        for letter in latest:
            console.print(_json(letter), soft_wrap=True, highlight=False, markup=False)
        return
    if not letters:
        console.print("no such letter")
        return
    table = Table("letter", "since (UTC)", "failed", "state", title="dead letters", title_justify="left")
    table.add_column("reason", overflow="fold")
    for letter in latest:
        table.add_row(letter.name, _at(letter.at), _times(letter.failed), letter.state, printable(letter.error))
    console.print(table)
    more = f", the latest {limit} are shown (--limit)" if len(letters) > limit else ""
    console.print(f"{_count(len(letters))}{more}")


def print_letter(console: Console, filed: FiledLetter, letter: Letter) -> None:
    """Everything that is known of a letter; on a terminal the beginning of its bytes."""
    record = letter.record
    table = Table(show_header=False, title=f"dead letter {filed.name}", title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("stood at", f"topic {record.topic}, partition {record.partition}, offset {record.offset}")
    table.add_row("published", f"{_at(filed.published_at)} UTC")
    table.add_row("given up", f"{_at(filed.at)} UTC by {printable(letter.consumer)}")
    table.add_row("error", printable(letter.error))
    table.add_row("failed", _times(filed.failed))
    table.add_row("state", _state(filed))
    table.add_row("key", "none" if record.key is None else printable(escaped(record.key)))
    for name, value in record.headers:
        table.add_row(f"header {printable(name)}", "null" if value is None else printable(escaped(value)))
    console.print(table)
    if record.value is None:
        console.print("its value is null")
        return
    shown = record.value[:_SHOWN] if console.is_terminal else record.value
    console.print(f"its value, {len(record.value)} bytes:")
    console.print(escaped(shown), soft_wrap=True, highlight=False, markup=False)
    if len(shown) < len(record.value):
        console.print(f"[dim]… and {len(record.value) - len(shown)} bytes more: --raw writes all of them[/]")


def print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """What would be sent and what is refused, by reason, and letter by letter where they are few."""
    refused = Counter(verdict.refused for verdict in verdicts if verdict.refused)
    if len(verdicts) <= _MOST_LISTED:
        table = Table("letter", title="to be sent again", title_justify="left")
        table.add_column("what", overflow="fold")
        for verdict in verdicts:
            what = f"[red]refused:[/] {printable(verdict.refused)}" if verdict.refused else printable(verdict.sends)
            table.add_row(f"{verdict.letter.name}{_before(verdict.letter)}", what)
        console.print(table)
    else:
        table = Table("letters", title="to be sent again", title_justify="left")
        table.add_column("what", overflow="fold")
        if sends := len(verdicts) - refused.total():
            table.add_row(str(sends), "can be read, and would be sent")
        for reason, count in refused.most_common(_MOST_LISTED):
            table.add_row(str(count), f"[red]refused:[/] {printable(reason)}")
        console.print(table)


def print_open_letters(console: Console, settings: Settings) -> None:
    """How many nobody has done anything about; nothing where there are none."""
    with TopicLog(settings, DEAD_LETTERS, "status") as log:
        most = log.span(0).size
    if most > _MOST_COUNTED:
        count = f"{most} or fewer"
    elif found := [letter for letter in read_all(settings) if LetterFilter().passes(letter)]:
        count = str(len(found))
        _print_removed(console, found)
    else:
        return
    console.print(f"[bold red]dead letters:[/] {count} open; `facematch dead-letters list` shows them")


def _print_removed(console: Console, letters: Sequence[FiledLetter]) -> None:
    removed: Counter[tuple[str, str]] = Counter()
    for letter in letters:
        removed[letter.topic, letter.consumer] += removed_records(letter.error)
    for (topic, consumer), count in sorted((+removed).items()):
        console.print(
            f"[bold red]removed unread:[/] {count} records of {printable(topic)}, which {printable(consumer)} had not "
            "read; see docs/runbook.md, Records removed",
            soft_wrap=True,
        )


def _state(filed: FiledLetter) -> str:
    if filed.settled is None or filed.settled_at is None:
        return filed.state
    by = "" if filed.settled.by is None else f" by {printable(filed.settled.by)}: {printable(filed.settled.note or '')}"
    return f"{filed.state} {_at(filed.settled_at)} UTC{by}"


def _before(filed: FiledLetter) -> str:
    """What was done about it before, if anything."""
    return "" if filed.settled is None else f"\n[dim]{_state(filed)}[/]"


def _json(letter: FiledLetter) -> str:
    settled = letter.settled
    fields = {
        "letter": letter.name,
        "topic": letter.topic,
        "at": letter.at.isoformat(),
        "published_at": letter.published_at.isoformat(),
        "consumer": letter.consumer,
        "error": letter.error,
        "failed": letter.failed,
        "bytes": letter.size,
        "state": letter.state,
    }
    if settled is not None and letter.settled_at is not None:
        fields |= {"settled_at": letter.settled_at.isoformat()} | settled.model_dump(
            include={"by", "note"}, exclude_none=True
        )
    return json.dumps(fields, ensure_ascii=False)


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(count: int) -> str:
    return "1 letter" if count == 1 else f"{count} letters"
