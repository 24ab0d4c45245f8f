"""Many byte strings that are searched for at once, in a time that hardly grows with their number. Pure."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np

_WINDOW = 4  # bytes
_TABLE_BITS = 22
_MIX = np.uint32(2_654_435_761)  # Knuth's multiplicative hash
_PIECE = 2**20

T = TypeVar("T")


class Needles(Generic[T]):
    """Byte strings, none of them empty, each with what it belongs to.

    The last four bytes of each are in a table of hashes; where a text has bytes with such a hash, it is compared.
    """

    def __init__(self, owners: Mapping[bytes, T]) -> None:
        self._owners = owners
        self._short = [needle for needle in owners if len(needle) < _WINDOW]
        long = [needle for needle in owners if len(needle) >= _WINDOW]
        self._lengths = sorted({len(needle) for needle in long})
        self._is_end = np.zeros(2**_TABLE_BITS, dtype=np.bool_)
        ends = np.frombuffer(b"".join(needle[-_WINDOW:] for needle in long), dtype="<u4")
        self._is_end[_hashes(ends)] = True

    def __bool__(self) -> bool:
        return bool(self._owners)

    @property
    def longest(self) -> int:
        """The length of the longest."""
        return max(map(len, self._owners), default=0)

    def find(self, text: bytes) -> Iterator[tuple[int, T]]:
        """Where each ends in a text, and what it belongs to; those of a piece of the text in no order."""
        for begin in range(0, len(text), _PIECE) if self._lengths else ():
            piece = text[max(0, begin - _WINDOW + 1) : begin + _PIECE]
            for at in self._ends_in(piece):
                end = max(0, begin - _WINDOW + 1) + at
                for length in self._lengths:
                    if length <= end and (needle := text[end - length : end]) in self._owners:
                        yield end, self._owners[needle]
        for needle in self._short:
            end = text.find(needle)
            while end >= 0:
                yield end + len(needle), self._owners[needle]
                end = text.find(needle, end + 1)

    def _ends_in(self, piece: bytes) -> list[int]:
        """Behind which bytes of a piece a needle may end."""
        if len(piece) < _WINDOW:
            return []
        found = []
        for shift in range(_WINDOW):
            whole = (len(piece) - shift) // _WINDOW
            windows = np.frombuffer(piece, dtype="<u4", count=whole, offset=shift)
            found += ((np.flatnonzero(self._is_end[_hashes(windows)]) + 1) * _WINDOW + shift).tolist()
        return found


def _hashes(windows: "np.ndarray[tuple[int], np.dtype[np.uint32]]") -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return (windows * _MIX) >> np.uint32(32 - _TABLE_BITS)
