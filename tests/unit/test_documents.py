"""What the documents tell the reader to type can be typed, and what they link to is there."""

import re
import shlex
from collections.abc import Iterator

import pytest
import yaml
from typer.main import get_command

from deploy.cli import app
from tests.documents import DOCUMENTS, README, ROOT, Document, document

ALERTS = ROOT / "deploy" / "monitoring" / "prometheus" / "alerts.yaml"
MAKEFILE = (ROOT / "Makefile").read_text()
IN_A_CONTAINER = r"kubectl .* -- (facematch .*)|docker .* run .* (facematch .*)"

each_document = pytest.mark.parametrize("file", DOCUMENTS, ids=str)


def typed(file: Document) -> Iterator[str]:
    """The `facematch` commands of the consoles, those inside other commands too, and those within sentences."""
    for line in file.typed:
        if found := re.match(rf"(?:nice )?(facematch .*)|{IN_A_CONTAINER}", line):
            yield next(filter(None, found.groups()))
    yield from (span for span in file.spans if span.startswith("facematch ") and not is_a_name(span))


def is_a_name(span: str) -> bool:
    """Whether it is no more than the name of a command or of a group of them."""
    at = get_command(app)
    for word in span.split()[1:]:
        if word not in getattr(at, "commands", {}):
            return False
        at = at.commands[word]  # type: ignore[attr-defined] # looked for in the line above
    return True


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


@each_document
def test_commands_can_be_typed(file: Document) -> None:
    for command in sorted(set(typed(file))):
        try:
            parse(command)
        except Exception as error:
            error.add_note(f"{file}: {command}")
            raise


def test_there_are_commands_where_they_are_needed() -> None:
    many = {str(file) for file in DOCUMENTS if len(set(typed(file))) > 10}
    assert many >= {"docs/operating.md", "docs/runbook.md"}
    assert README.typed[0].startswith("make demo ")
    assert README.typed[2].startswith("make test ")


@each_document
def test_what_is_made_can_be_made(file: Document) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for command in {one.split("#")[0] for one in (*file.typed, *file.spans) if one.startswith("make ")}:
        words = shlex.split(command)[1:]
        variables = {word.partition("=")[0] for word in words if "=" in word}
        assert {word for word in words if "=" not in word} <= targets, f"{file}: {command}"
        assert all(re.search(rf"\$\({name}\)|{name}=", MAKEFILE) for name in variables), f"{file}: {command}"


@each_document
def test_links_lead_somewhere(file: Document) -> None:
    for link in file.links:
        path, _, anchor = link.partition("#")
        target = (file.path.parent / path).resolve() if path else file.path
        assert target.exists(), f"{file}: {link}"
        assert not anchor or anchor in Document(target).anchors, f"{file}: {link}"


def test_every_document_is_linked_to() -> None:
    linked = {(file.path.parent / link.partition("#")[0]).resolve() for file in DOCUMENTS for link in file.links}
    assert {str(file) for file in DOCUMENTS if file.path not in linked} <= {str(README)}


def test_every_alert_has_an_entry() -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    links = {rule["alert"]: rule["annotations"]["runbook"] for group in groups for rule in group["rules"]}
    entries = {f"docs/runbook.md#{anchor}" for anchor in document("docs/runbook.md").anchors}
    assert {alert: link for alert, link in links.items() if link not in entries} == {}
    assert len(links) > 20
