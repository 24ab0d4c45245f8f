"""The base of all events. Every event is immutable; its key and its meaning stand with its class and nowhere else."""

from abc import abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

CollectionName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,128}$"),
    Field(
        description="The scope within which duplicates are sought: a programme, a country, a region. "
        "Nothing is ever compared across collections."
    ),
]
IndividualId = Annotated[
    str,
    # No controls (C0, C1), no line separators, nothing that turns the direction of writing: ids are read by people.
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]{1,256}$"),
    Field(description="The registration system's own id of the individual, unique within the collection."),
]
_LARGEST_EXACT_FLOAT = 2.0**53  # above it not every whole number has a float


def _whole_number(value: Any) -> Any:
    """1 for 1.0, which is the same number in JSON; anything else as it is."""
    is_whole = isinstance(value, float) and value.is_integer() and value <= _LARGEST_EXACT_FLOAT
    return int(value) if is_whole else value


Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]  # Postgres stores no NUL
Revision = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=2**63 - 1,
        description="Grows with every change to the individual. Wherever two revisions meet, the higher "
        "one wins, in any order of arrival.",
    ),
    BeforeValidator(_whole_number),  # behind the bounds, whose names JSON Schema would not know otherwise
]
EncoderId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._+-]{1,64}$"),
    Field(
        description="Names the weights and the pipeline that made the embedding. Embeddings of different "
        "encoders are never compared."
    ),
]
Distance = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="Euclidean distance between the two embeddings; no unit."),
]

Count = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def key_prefix(collection: str) -> str:
    """What the keys of all individuals of a collection begin with, and of no other."""
    return f"{collection}/"


def individual_key(collection: str, individual_id: str) -> str:
    """The key of every record about one individual: collection/individual_id."""
    return key_prefix(collection) + individual_id


def individual_of(key: str) -> tuple[str, str]:
    """The collection and the individual of a key: the inverse of `individual_key`. A collection has no slash."""
    collection, _, individual_id = key.partition("/")
    return collection, individual_id


class Subject(NamedTuple):
    """An individual that an event is about, and of which revision; None: of every revision."""

    individual_id: IndividualId
    revision: Revision | None


class Event(BaseModel):
    """What all events share: they are immutable, unknown fields are ignored, and they know their key.

    An event whose record has a null value stands in the key and the headers alone: it names these `NULL_HEADERS`, with
    a JSON Schema of each, and what it needs in words, `NULL_NEEDS`; `null_headers` and `from_null` write and read
    them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, hide_input_in_errors=True)
    NULL_HEADERS: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    NULL_NEEDS: ClassVar[str] = ""

    collection: CollectionName

    @property
    @abstractmethod
    def key(self) -> str:
        """The Kafka key; compaction keeps the latest record of each."""

    @property
    @abstractmethod
    def key_rule(self) -> str:
        """How the key is made, in words."""

    @abstractmethod
    def subjects(self) -> tuple[Subject, ...]:
        """The individuals of its collection that it is about, of whom it must not speak once they are erased.

        None where it names nobody: it holds a keyed hash, a key that is erased, or figures alone.
        """

    @classmethod
    def from_null(cls, key: str, headers: Mapping[str, str]) -> Self:
        """The event of a null value under a key. Raises KeyError and ValueError where key or headers are not so."""
        raise NotImplementedError

    def null_headers(self) -> dict[str, str]:
        """The headers that `from_null` reads."""
        raise NotImplementedError


class IndividualEvent(Event):
    """An event about one revision of one individual."""

    individual_id: IndividualId
    revision: Revision

    @property
    def key(self) -> str:
        return individual_key(self.collection, self.individual_id)

    @property
    def key_rule(self) -> str:
        return "collection/individual_id"

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(self.individual_id, self.revision),)


class Detector(StrEnum):
    """How a face is found: in the CPU pool by HOG or, with sface, by YuNet; in the GPU pool by CNN."""

    HOG = "hog"
    YUNET = "yunet"
    CNN = "cnn"


class Member(BaseModel):
    """One side of a pair."""

    model_config = ConfigDict(frozen=True)

    individual_id: IndividualId
    revision: Revision
