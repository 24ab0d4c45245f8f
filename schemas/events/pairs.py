"""Events about pairs, and about who was compared with everyone before."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple, Self
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    model_validator,
)

from schemas.events.base import (
    Distance,
    EncoderId,
    Event,
    IndividualEvent,
    IndividualId,
    Member,
    Subject,
    Text,
)
from schemas.identity import uuid_of
from schemas.shard import MOST_SHARDS, Shard

_PAIR_NAMESPACE = UUID("5ba1b2c8-3a3c-5c0e-9d5e-0f5b6c1d7a10")
_PAIR_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CHECK_KEY = re.compile(r"(?:@([0-9]+/[0-9]+)/)?([^/@][^/]*/.+)", re.DOTALL)
_as_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def check_key(key: str, shard: Shard) -> str:
    """The key of a check: the individual's; of one shard among several preceded by @2/8/.

    So none overwrites another's.
    """
    return key if shard.count == 1 else f"@{shard}/{key}"


def parse_check_key(key: str) -> tuple[Shard, str] | None:
    """The shard and the individual's key of the key of a check: the inverse of `check_key`. None of any other key.

    No collection begins with @: see CollectionName.
    """
    found = _CHECK_KEY.fullmatch(key)
    try:
        return None if found is None else (Shard.parse(found[1] or str(Shard())), found[2])
    except ValueError:
        return None


def is_pair_id(key: str) -> bool:
    """Whether a key is the id of a pair, and not that of an individual's check."""
    return _PAIR_ID.fullmatch(key) is not None


def pair_id(collection: str, encoder: str, one: str, other: str) -> str:
    """The id of a pair: a UUID (version 5) of the collection, the encoder and the two ids in their order.

    Any repetition of a finding, by any process, therefore is the same row.
    """
    return uuid_of(_PAIR_NAMESPACE, _as_json([collection, encoder, *sorted((one, other))]))


def _check_order(a: str, b: str) -> None:
    if not a < b:
        raise ValueError("a pair has two different individuals, the smaller id first")


class Version(NamedTuple):
    """Which of two statements on one pair, or check, counts: that of the higher version, of equal ones the first.

    In whatever order they arrive. `revisions` is the sum of both members' revisions, or the revision that was checked;
    `time` is ce_time. The same rule stands below for numpy, and for SQL in `schemas.tables`.
    """

    revisions: int
    time: datetime


def version_keys(
    revisions_a: NDArray[np.int64], revisions_b: NDArray[np.int64], times: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Versions of n statements, as np.lexsort takes keys: the more significant one last. (n,) of each."""
    return times, revisions_a.astype(np.uint64) + revisions_b.astype(np.uint64)  # int64 is too small for the sum


class PairEvent(Event):
    """An event about a pair of individuals; `a` has the smaller id."""

    encoder: EncoderId
    a: Member
    b: Member

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.a.individual_id, self.b.individual_id)
        return self

    @cached_property
    def pair_id(self) -> str:
        """See `pair_id`."""
        return pair_id(self.collection, self.encoder, self.a.individual_id, self.b.individual_id)

    @property
    def key(self) -> str:
        return self.pair_id

    def version(self, time: datetime) -> Version:
        """See `Version`; `time` is that of its message."""
        return Version(self.a.revision + self.b.revision, time)

    @property
    def key_rule(self) -> str:
        return "the pair id"

    def subjects(self) -> tuple[Subject, ...]:
        return tuple(Subject(member.individual_id, member.revision) for member in (self.a, self.b))


class DuplicateFound(PairEvent):
    """Two registrations look like the same person: a candidate for a person to review, never a verdict."""

    distance: Distance
    threshold: Distance = Field(description="Pairs at most this far apart are found.")


class RetractionReason(StrEnum):
    """Why a pair no longer holds."""

    UPDATED = "updated"
    ERASED = "erased"
    THRESHOLD = "threshold"


class DuplicateRetracted(PairEvent):
    """A pair that was found at these revisions no longer holds. What is found at higher ones is not touched by it."""

    reason: RetractionReason = Field(description="Why it no longer holds.")
    distance: Distance | None = Field(default=None, description="How far apart they were found to be.")
    threshold: Distance | None = Field(default=None, description="The threshold under which they were found.")


PairStatement = DuplicateFound | DuplicateRetracted


class IndividualChecked(IndividualEvent):
    """An individual was compared with everyone registered before, or with the share of them that one shard keeps.

    Where several shards share the work, everyone was compared once each of them has published it for this revision.
    """

    encoder: EncoderId
    duplicates: int = Field(
        ge=0,
        le=2**31 - 1,
        description="How many of those before look like the same person; of several shards, those of this one alone.",
    )
    truncated: bool = Field(
        default=False,
        description="Whether more were found than there are DuplicateFound of them: those are of the nearest.",
    )
    shard: int = Field(default=1, ge=1, le=MOST_SHARDS, description="Which of the shards compared, from 1.")
    shards: int = Field(default=1, ge=1, le=MOST_SHARDS, description="How many shards share the work.")

    @model_validator(mode="after")
    def _is_a_shard(self) -> Self:
        Shard(self.shard, self.shards)
        return self

    def version(self, time: datetime) -> Version:
        """See `Version`; `time` is that of its message."""
        return Version(self.revision, time)

    @property
    def key(self) -> str:
        """See `check_key`."""
        return check_key(super().key, Shard(self.shard, self.shards))

    @property
    def key_rule(self) -> str:
        return super().key_rule if self.shards == 1 else f"@shard/shards/{super().key_rule}"


class PairDecided(Event):
    """A reviewer's decision about a pair of individuals; `a` has the smaller id.

    It holds whatever becomes of their photos: of whichever revisions, by whichever encoder they are found.
    """

    encoder: EncoderId
    a: IndividualId
    b: IndividualId
    verdict: Literal["same", "different"] = Field(description="Whether both registrations are one person.")
    by: Text = Field(min_length=1, max_length=256, description="Who decided.")
    note: Text = Field(default="", max_length=4096, description="Why, in the reviewer's words.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.a, self.b)
        return self

    @property
    def key(self) -> str:
        return pair_id(self.collection, self.encoder, self.a, self.b)

    @property
    def key_rule(self) -> str:
        return "the pair id"

    def subjects(self) -> tuple[Subject, ...]:
        return Subject(self.a, None), Subject(self.b, None)


class KeyErased(Event):
    """A null value: what was published under its key was about somebody who was erased. Forget it.

    Headers: its collection.
    """

    NULL_HEADERS: ClassVar[Mapping[str, Mapping[str, str]]] = {"collection": {"type": "string"}}
    NULL_NEEDS = "a key and a header collection"

    erased_key: Text = Field(
        min_length=1,
        max_length=512,
        description="Of the record, and of those before it that are to be forgotten.",
    )

    @property
    def key(self) -> str:
        return self.erased_key

    @property
    def key_rule(self) -> str:
        return "that of what is erased"

    def subjects(self) -> tuple[Subject, ...]:
        return ()

    @classmethod
    def from_null(cls, key: str, headers: Mapping[str, str]) -> Self:
        return cls(collection=headers["collection"], erased_key=key)

    def null_headers(self) -> dict[str, str]:
        return {"collection": self.collection}


class FindingErased(KeyErased):
    """A null value on `duplicates`: the pair, or the check, was of somebody who was erased. Forget it."""


class DecisionErased(KeyErased):
    """A null value on `decisions`: the pair was of somebody who was erased. Forget it."""


def in_order(one: Member, other: Member) -> tuple[Member, Member]:
    """The smaller id first."""
    return (one, other) if one.individual_id < other.individual_id else (other, one)
