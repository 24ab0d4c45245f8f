"""What is printed of letters: on a terminal only so much, and nothing that it would obey."""

import io
from dataclasses import replace

from rich.console import Console

from deploy.letters.box import FiledLetter, file
from deploy.letters.redrive import Verdict
from deploy.letters.report import print_letter, print_letters, print_verdicts
from schemas.letters import Letter, LetterOutcome, Settled, settled_record
from tests.records import stored
from tests.unit.test_letters import CREATED, letter_of, read


def filed(value: bytes = b"", error: str = "why") -> tuple[FiledLetter, Letter]:
    record = letter_of(replace(CREATED, value=value), error)
    (one,) = file([record])
    return one, read(record)


def printed(letter: tuple[FiledLetter, Letter], is_terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100, color_system=None)
    with console.capture() as capture:
        print_letter(console, *letter)
    return capture.get()


def test_on_a_terminal_a_long_letter_is_cut_short_and_says_so() -> None:
    long = filed(b"x" * 5000)
    assert "x" * 5000 in printed(long)
    assert "x" * 2001 not in printed(long, is_terminal=True).replace("\n", "")
    assert "and 3000 bytes more" in printed(long, is_terminal=True)


def test_nothing_of_a_letter_is_obeyed() -> None:
    text = printed(filed(b"\x1b[2J[bold]x", "\x1b[31m[red]error"))
    assert "\x1b" not in text
    assert r"\x1b[2J[bold]x" in text
    assert "?[31m[red]error" in text


def test_who_discarded_a_letter_and_why_is_shown() -> None:
    mark = settled_record(
        Settled(letter="individuals/3/41", outcome=LetterOutcome.DISCARDED, by="Ana", note="[a] test")
    )
    (one,) = file([letter_of(CREATED), stored(mark, 1)])
    assert "discarded 1970-01-01 00:00:00 UTC by Ana: [a] test" in printed((one, read(letter_of(CREATED))))


def test_of_many_letters_the_reasons_are_counted() -> None:
    letter, _ = filed()
    verdicts = [Verdict(letter, refused="no face")] * 40 + [Verdict(letter, sends="IndividualCreated c/a")] * 20
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        print_verdicts(console, verdicts)
        print_letters(console, [letter] * 60, limit=50, as_json=False)
    lines = [line.split("│")[1:3] for line in capture.get().splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines[:2]] == [
        ["20", "can be read, and would be sent"],
        ["40", "refused: no face"],
    ]
    assert "60 letters, the latest 50 are shown" in capture.get()
