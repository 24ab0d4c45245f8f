"""What is said on the topics. Every event is immutable; its key and its meaning stand here and nowhere else."""

from enum import StrEnum
from typing import Annotated

from pydantic import (
    BaseModel,
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
    StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$"),
    Field(description="The registration system's own id of the individual, unique within the collection."),
]
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


def individual_key(collection: str, individual_id: str) -> str:
    """The key of every record about one individual. A collection's name has no slash, so it splits back."""
    return f"{collection}/{individual_id}"


class Event(BaseModel):
    """What all events share: they are immutable, unknown fields are ignored, and they know their key."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True, hide_input_in_errors=True)

    collection: CollectionName

    @property
    def key(self) -> str:
        """The Kafka key; compaction keeps the latest record of each."""
        raise NotImplementedError


class IndividualEvent(Event):
    """An event about one revision of one individual."""

    individual_id: IndividualId
    revision: Revision

    @property
    def key(self) -> str:
        return individual_key(self.collection, self.individual_id)


class Detector(StrEnum):
    """How a face is found: HOG in the CPU pool, CNN in the GPU pool."""

    HOG = "hog"
    CNN = "cnn"


class Member(BaseModel):
    """One side of a pair."""

    model_config = ConfigDict(frozen=True)

    individual_id: IndividualId
    revision: Revision
