"""What others wrote, for a terminal: without what it would obey."""

from rich.markup import escape


def printable(text: str) -> str:
    """Text that nobody has checked, for a table: whatever is not printable becomes a question mark."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def escaped(data: bytes) -> str:
    """Bytes as text: UTF-8 where they are, and escapes where they are not, or not printable. Lines stay lines."""
    text = data.decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
