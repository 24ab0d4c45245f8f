"""What README and runbook tell the user to type can be typed, and each alert has its entry in the runbook."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from deploy.cli import app

ROOT = Path(__file__).parents[2]
README, OPERATIONS, RUNBOOK = ROOT / "README.md", ROOT / "docs" / "operating.md", ROOT / "docs" / "runbook.md"
ALERTS = ROOT / "deploy" / "monitoring" / "prometheus" / "alerts.yaml"


def typed(file: Path) -> Iterator[str]:
    """The commands after a `$` in consoles; of the runbook those within a sentence too, which are whole there."""
    text = file.read_text()
    consoles = "\n".join(re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    yield from re.findall(r"^\$ (?:nice )?(facematch .*)$", consoles.replace("\\\n", " "), re.MULTILINE)
    if file == RUNBOOK:
        yield from re.findall(r"`(facematch [^`…]+)`", prose(file))


def prose(file: Path) -> str:
    """All but what stands in blocks of code."""
    return re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)


def parse(command: str) -> None:
    """Read a command as the shell and the command line do, and run nothing. Raises what tells a user of a mistake."""
    words = shlex.split(re.split(r"\s[|&;>]\s?", command)[0], comments=True)
    at, arguments = get_command(app), words[1:]
    while True:
        context = at.make_context(words[0], list(arguments))
        if not hasattr(at, "resolve_command"):
            return
        _, found, arguments = at.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        at = found


@pytest.mark.parametrize("file", [README, OPERATIONS, RUNBOOK], ids=lambda file: file.name)
def test_commands_can_be_typed(file: Path) -> None:
    commands = set(typed(file))
    assert len(commands) > 10
    for command in sorted(commands):
        try:
            parse(command)
        except Exception as error:
            error.add_note(f"{file.name}: {command}")
            raise


def anchors(file: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", [README, OPERATIONS, RUNBOOK], ids=lambda file: file.name)
def test_links_within_lead_somewhere(file: Path) -> None:
    links = set(re.findall(r"\]\(#([^)]+)\)", file.read_text()))
    assert links <= anchors(file)


def test_every_alert_has_an_entry() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    links = {rule["alert"]: rule["annotations"]["runbook"] for group in groups for rule in group["rules"]}
    entries = {f"docs/runbook.md#{anchor}" for anchor in anchors(RUNBOOK)}
    assert {alert: link for alert, link in links.items() if link not in entries} == {}
    assert len(links) > 20
