"""A shard: one of several matchers that divide the vectors of a partition among them."""

import re
from dataclasses import dataclass

MOST_SHARDS = 1000


@dataclass(frozen=True, slots=True)
class Shard:
    """Number `number` of `count` matchers, from 1. Each keeps its share of the vectors; all compare every newcomer.

    Raises ValueError unless 1 <= number <= count <= MOST_SHARDS. Without arguments it is the only one.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MOST_SHARDS:
            raise ValueError(f"{self} is no shard: {_ALLOWED}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that `str` writes as this text. Raises ValueError, with what is allowed."""
        parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if parts is None:
            raise ValueError(f"{text!r} is no shard: {_ALLOWED}")
        return cls(int(parts[1]), int(parts[2]))


_ALLOWED = f"one of 8 is written 1/8, 2/8 … 8/8, and there are at most {MOST_SHARDS}"
