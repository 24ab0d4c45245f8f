"""The door through which every command prints: nothing that comes from outside is obeyed by the terminal."""

import json
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Not printable to Python, and harmless: a line's end, spaces, and the joiners of Persian and Indic names.
_HARMLESS = frozenset("\n\u00a0\u2009\u202f\u200c\u200d")


def harmless(text: str) -> str:
    r"""The text with every other unprintable character as \uXXXX, as JSON writes it: controls, C1, bidi, separators."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in _HARMLESS else json.dumps(one)[1:-1] for one in text)


class Terminal(Console):
    """A rich console whose texts are harmless. Only rich's own styles and movements reach the terminal as they are."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                style = segment.style and segment.style.update_link(None)
                yield Segment(harmless(segment.text), style)

    def plain(self, text: object) -> None:
        """Print a line as it is: without markup, colours or line breaks."""
        self.print(str(text), soft_wrap=True, highlight=False, markup=False)
