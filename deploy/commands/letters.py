"""`facematch dead-letters`: what could not be read, and what is to be done about it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.app import (
    OPERATE,
    Application,
    UserError,
    app,
    read_settings,
    servers_expected,
    settings_with_key,
    topics_expected,
)
from deploy.commands.times import TIME_HELP, parse_period
from deploy.terminal import Terminal

if TYPE_CHECKING:
    from deploy.letters.box import FiledLetter, LetterFilter

letters = Application(no_args_is_help=True)
app.add_typer(
    letters,
    name="dead-letters",
    rich_help_panel=OPERATE,
    help="Messages that could not be read: `list`, `show`, `redrive` (send again, put right), `discard`. Each is named "
    "by where it stood, topic/partition/offset, and kept for 30 days.",
)

Letters = Annotated[
    list[str] | None, typer.Argument(help="Letters, as `dead-letters list` names them.", metavar="LETTER…")
]
Reason = Annotated[str | None, typer.Option(help="Only those whose error has this text in it.", metavar="TEXT")]
FromTopic = Annotated[str | None, typer.Option(help="Only those from this topic, as `individuals`.")]
Since = Annotated[
    str | None, typer.Option(help=f"Only those that became letters at this time or later. {TIME_HELP}", metavar="TIME")
]
Until = Annotated[str | None, typer.Option(help="Only those that became letters before this time.", metavar="TIME")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it nothing is changed.")]


@letters.callback()
def _letters() -> None:
    """What could not be read."""


@letters.command("list")
def list_(
    reason: Reason = None,
    topic: FromTopic = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Those too that were redriven or discarded.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many, the latest.", min=1)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Letters that nobody has done anything about: which, since when, how often they failed, and why."""
    from deploy.letters.box import LetterFilter
    from deploy.letters.report import print_letters

    choice = LetterFilter(reason, topic, *parse_period(since, until), settled=everything)
    chosen = _chosen([], choice)
    print_letters(Terminal(), chosen, limit, as_json)
    if as_json and len(chosen) > limit:
        Terminal(stderr=True).plain(f"these are the latest {limit} of {len(chosen)}: --limit")


@letters.command()
def show(
    letter: Annotated[str, typer.Argument(help="A letter, as `dead-letters list` names it.", metavar="LETTER")],
    raw: Annotated[bool, typer.Option("--raw", help="The bytes of its value, all of them, and nothing else.")] = False,
) -> None:
    """A letter: where it stood, what is wrong, its headers and its bytes. They may hold a photo, or an embedding."""
    from deploy.letters.box import LetterFilter, read_bytes
    from deploy.letters.report import print_letter

    if raw and sys.stdout.isatty():
        raise UserError("--raw writes bytes that a terminal might obey: send them to a file, with `> FILE`")
    found = _chosen([letter], LetterFilter())
    with servers_expected():
        for filed, one in read_bytes(read_settings(), found):
            if raw:
                sys.stdout.buffer.write(one.record.value or b"")
            else:
                print_letter(Terminal(), filed, one)


@letters.command()
def redrive(
    names: Letters = None,
    reason: Reason = None,
    topic: FromTopic = None,
    since: Since = None,
    until: Until = None,
    patch: Annotated[
        str | None,
        typer.Option(help="Put the values right by this JSON Patch (RFC 6902), or that in @FILE.", metavar="PATCH"),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="Set a header; may be given several times.", metavar="NAME=VALUE")
    ] = None,
    rekey: Annotated[bool, typer.Option("--rekey", help="Give each the key that follows from its event.")] = False,
    skip: Annotated[bool, typer.Option("--skip-refused", help="Leave out what is refused, and send the rest.")] = False,
    yes: Yes = False,
) -> None:
    """Send letters again to the topic that each came from: those named, or all open ones of a choice.

    Says first what would be sent, and sends it with --yes. What would be a dead letter again is refused, and then
    nothing is sent. Sent twice, a message changes nothing.
    """
    from deploy.letters.fix import LetterFix
    from deploy.letters.redrive import Redrive
    from deploy.letters.report import print_verdicts
    from runtime.servers.publisher import PublishError, UnacknowledgedError

    fix = LetterFix.of(_read_patch(patch), header or [], rekey)
    settings, console = settings_with_key(), Terminal()
    chosen = _chosen_for(names, reason, topic, since, until)
    with servers_expected(), console.status("") as status:
        work = Redrive(settings, fix)
        verdicts = work.judge(chosen)
        status.stop()
        print_verdicts(console, verdicts)
        good = [verdict.letter for verdict in verdicts if not verdict.refused]
        refused = len(verdicts) - len(good)
        if refused and not skip:
            raise UserError(
                f"{refused} of {len(verdicts)} are refused, and nothing is sent: put them right (--patch, --header, "
                "--rekey), discard them, or leave them out with --skip-refused"
            )
        if not yes:
            console.print(f"{len(good)} would be sent again; nothing is yet: --yes sends them")
            return
        status.start()
        try:
            too_large = work.send(good, lambda count: status.update(f"{count} of {len(good)}"))
        except (PublishError, UnacknowledgedError) as error:
            console.print(f"[bold red]not finished:[/] {error}. What was sent is on record: run it again for the rest")
            raise typer.Exit(1) from None
    console.print(f"{len(good) - len(too_large)} sent again")
    for one in too_large:
        console.print(f"[bold red]not sent:[/] {one.name} is larger than Kafka takes")
    if too_large:
        raise typer.Exit(1)


@letters.command()
def discard(
    by: Annotated[str, typer.Option(help="Who decides it.", metavar="WHO")],
    note: Annotated[str, typer.Option(help="Why.")],
    names: Letters = None,
    reason: Reason = None,
    topic: FromTopic = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Put on record that nothing is to be done about letters: those named, or all open ones of a choice.

    They stay readable (`list --all`, `show`) until Kafka drops them, and can be redriven still.
    """
    from deploy.letters.redrive import discard as put_on_record
    from deploy.letters.report import print_letters
    from runtime.servers.publisher import PublishError, UnacknowledgedError

    console = Terminal()
    chosen = _chosen_for(names, reason, topic, since, until)
    print_letters(console, chosen, limit=50, as_json=False)
    if not yes:
        console.print(f"{len(chosen)} would be discarded; nothing is yet: --yes does it")
        return
    with servers_expected():
        try:
            put_on_record(read_settings(), chosen, by, note)
        except (PublishError, UnacknowledgedError) as error:
            console.print(f"[bold red]not finished:[/] {error}: run it again")
            raise typer.Exit(1) from None
    console.print(f"{len(chosen)} discarded")


@app.command(rich_help_panel=OPERATE)
def skip(
    position: Annotated[
        str,
        typer.Argument(help="Where the record stands, as a worker's line names it.", metavar="TOPIC/PARTITION/OFFSET"),
    ],
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Pass over a record that no worker gets past: it becomes a dead letter, which can be redriven.

    A worker that dies of a record several times does so by itself. It works on compacted topics too, of which Kafka
    removes nothing by hand.
    """
    from deploy.letters.skip import skip as skip_record
    from schemas.attempts import Position

    try:
        place = Position.parse(position)
    except ValueError as error:
        raise UserError(str(error)) from None
    settings = read_settings()
    with servers_expected():
        topics_expected(settings)
        readers = skip_record(settings, place, note)
    Terminal().plain(
        f"{place} is a dead letter; {', '.join(readers)} pass over it from their next start on: "
        "one that dies of it is started again, one that hangs at it must be"
    )


def _chosen_for(
    names: list[str] | None, reason: str | None, topic: str | None, since: str | None, until: str | None
) -> "list[FiledLetter]":
    """The letters to act on. Raises UserError where neither names nor filters choose them."""
    from deploy.letters.box import LetterFilter

    choice = LetterFilter(reason, topic, *parse_period(since, until))
    if bool(names) == (choice != LetterFilter()):
        raise UserError("name letters, or choose them by --reason, --topic, --since and --until: one of the two")
    return _chosen(names or [], choice)


def _chosen(names: list[str], choice: "LetterFilter") -> "list[FiledLetter]":
    from deploy.letters.box import choose, read_all
    from schemas.topics import TOPICS

    known = [topic.name for topic in TOPICS]
    if choice.topic is not None and choice.topic not in known:
        raise UserError(f"--topic {choice.topic}: the topics are {', '.join(known)}")
    settings = read_settings()
    with servers_expected(), Terminal(stderr=True).status("") as status:
        topics_expected(settings)
        found = read_all(settings, lambda done, total: status.update(f"{done} of {total} records"))
    return choose(found, names, choice)


def _read_patch(text: str | None) -> str | None:
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--patch {text}: {error}") from None
