"""The documents for people, taken apart: their commands, their links, and what stands in backticks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "runtime", "producers", "consumers", "streams", "deploy", "tests")


@dataclass(frozen=True)
class Document:
    """One file in Markdown."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """All but the blocks of code."""
        return re.sub(r"^ *```.*?^ *```", "", self.text, flags=re.DOTALL | re.MULTILINE)

    @cached_property
    def spans(self) -> tuple[str, ...]:
        """What stands in backticks, on one line each."""
        found = (re.findall(r"`([^`]+)`", paragraph) for paragraph in self.prose.split("\n\n"))
        return tuple(re.sub(r"\s+", " ", span) for spans in found for span in spans)

    @cached_property
    def typed(self) -> tuple[str, ...]:
        """The lines behind a `$` in blocks of console; one that goes on in the next line is one."""
        blocks = re.findall(r"^ *```console\n(.*?)^ *```", self.text, re.DOTALL | re.MULTILINE)
        return tuple(re.findall(r"^ *\$ (.+)$", "".join(blocks).replace("\\\n", " "), re.MULTILINE))

    @cached_property
    def links(self) -> tuple[str, ...]:
        """Where links within the repository lead: path, path#anchor or #anchor."""
        return tuple(link for link in re.findall(r"\]\(([^)\s]+)\)", self.prose) if not re.match(r"[a-z]+:", link))

    @cached_property
    def anchors(self) -> frozenset[str]:
        """The anchors of its headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return frozenset(re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings)

    def rows(self, first_heading: str) -> Iterator[list[str]]:
        """The cells of each row of the tables whose first column is called that."""
        for table in re.findall(rf"^\| *{re.escape(first_heading)} *\|.*\n\|[-| ]+\|\n((?:\|.*\n?)*)", self.text, re.M):
            for line in table.splitlines():
                yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


README = Document(ROOT / "README.md")
DOCUMENTS = (
    README,
    Document(ROOT / "SECURITY.md"),
    *map(Document, sorted((ROOT / "docs").rglob("*.md"))),
)


def document(name: str) -> Document:
    """The one at that path, from the root of the repository."""
    (found,) = (one for one in DOCUMENTS if str(one) == name)
    return found
