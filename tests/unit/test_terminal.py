"""Nothing that others wrote is obeyed by a terminal, whichever command prints it."""

import ast
import io
import json
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table

from deploy.commands.app import UserError
from deploy.terminal import Terminal, harmless

ROOT = Path(__file__).parents[2]
ATTACKS = {
    "OSC 52, clipboard": "\x1b]52;c;ZWNobyBwd25lZA==\x07",
    "OSC 8, link": "\x1b]8;;http://evil.test/\x1b\\click\x1b]8;;\x1b\\",
    "clear screen": "\x1b[2J\x1b[H",
    "C1": "\x9b31m\x9d0;title\x9c",
    "bidi": "\u202egpj.exe\u2066\u200f",
    "line separator": "a\u2028level=critical\u2029",
    "backspace": "a\b\b\r",
    "link by markup": "[link=http://evil.test]y[/link]",
}

OBEYED = ("\x1b]", "\x1b[2J", "\x1b[H", "\x9b", "\x9d", "\u202e", "\u2066", "\u200f", "\u2028", "\b", "\r")


def printed(what: object, markup: bool = True) -> str:
    terminal = Terminal(file=io.StringIO(), force_terminal=True, width=200)
    with terminal.capture() as capture:
        terminal.print(what, markup=markup, highlight=markup, soft_wrap=True)
    return capture.get()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_text_is_obeyed(attack: str) -> None:
    table = Table("who", title=escape(attack))
    table.add_row(escape(attack))
    for text in (printed(table), printed(attack), printed(attack, markup=False)):
        for sequence in (
            "\x1b]",
            "\x1b[2J",
            "\x1b[H",
            "\x9b",
            "\x9d",
            "\u202e",
            "\u2066",
            "\u200f",
            "\u2028",
            "\b",
            "\r",
        ):
            assert sequence not in text


def test_styles_of_our_own_are_kept() -> None:
    assert "\x1b[1;31mfailed\x1b[0m" in printed("[bold red]failed[/]")


def test_json_stays_what_it_says() -> None:
    text = "\x9b\u202e\U000e0001 José می‌خواهم"
    line = printed(json.dumps(text, ensure_ascii=False), markup=False)
    assert json.loads(line) == text
    assert "José می‌خواهم" in line


def test_an_error_is_harmless_too() -> None:
    assert UserError("nobody is \x1b[2J\u202e").format_message() == harmless("nobody is \x1b[2J\u202e")
    assert "\x1b" not in UserError("\x1b[2J").format_message()


@pytest.mark.parametrize("file", sorted((ROOT / "deploy").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_prints_through_the_terminal(file: Path) -> None:
    """`print` may write to a file alone."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            to_a_file = any(keyword.arg == "file" for keyword in node.keywords)
            assert called not in ("Console", "typer.echo", "typer.secho"), f"line {node.lineno}: use deploy.terminal"
            assert called != "print" or to_a_file, f"line {node.lineno}: use deploy.terminal"
