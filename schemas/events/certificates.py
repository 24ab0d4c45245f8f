"""The certificate of a compaction."""

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
)

from schemas.events.base import Count, Distance, EncoderId, Event, Seconds, Subject, Text
from schemas.shard import MOST_SHARDS


class IndexParameters(BaseModel):
    """hnswlib's parameters of an index."""

    model_config = ConfigDict(frozen=True)

    m: Count = Field(description="Links of each node.")
    ef_construction: Count = Field(description="Candidates looked at for them.")
    ef: Count = Field(description="Candidates looked at in a search.")


class MeasuredRecall(BaseModel):
    """The share of pairs within the threshold that an index finds, against exact search of a random sample."""

    model_config = ConfigDict(frozen=True)

    recall: float = Field(ge=0, le=1, description="Of all pairs, or the mean over people: whichever is less.")
    low: float = Field(ge=0, le=1, description="Lower end of the 95 % confidence interval.")
    high: float = Field(ge=0, le=1, description="Upper end of the 95 % confidence interval.")
    people: Count = Field(description="Size of the sample.")
    made_up: bool = Field(
        default=False,
        description="Whether the sample is of places near people, since people drawn at random have too few pairs.",
    )
    pairs: Count = Field(description="Pairs that exact search finds of it.")
    floor: float = Field(ge=0, le=1, description="The least that is good enough.")


class PairCounts(BaseModel):
    """What a compaction came to."""

    model_config = ConfigDict(frozen=True)

    kept: Count = Field(description="Known before, and right.")
    found: Count = Field(description="Missed before: published as DuplicateFound.")
    retracted: Count = Field(description="No longer right: published as DuplicateRetracted.")


class CompactionCertified(Event):
    """The index of a collection was built anew from the log, and its pairs compared with what had been found.

    Of several shards each certifies its own part; of several encoders each has a certificate.
    """

    certificate_id: str = Field(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="Of this certificate alone: a UUID."
    )
    encoder: EncoderId | None = Field(default=None, description="Absent where nobody ever had an embedding.")
    shard: int = Field(default=1, ge=1, le=MOST_SHARDS, description="Which of the shards this is, from 1.")
    shards: int = Field(default=1, ge=1, le=MOST_SHARDS, description="How many shards share the collection.")
    partition: Count = Field(description="Of the topic encodings.")
    offset: Count = Field(description="The log below this offset was read.")
    people: Count = Field(description="Living individuals in the index.")
    threshold: Distance = Field(description="Pairs at most this far apart hold.")
    index: IndexParameters | None = Field(default=None, description="Absent where nobody is living.")
    recall: MeasuredRecall | None = Field(default=None, description="Absent where nobody is living.")
    pairs: PairCounts = Field(description="What was known of pairs, and what was put right.")
    checked: Count = Field(
        description="How many individuals had no IndividualChecked of their revision: it was published."
    )
    in_service: bool = Field(
        description="Whether matchers were handed the index. One below the recall floor is not: the one before stays."
    )
    checksum: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the SHA-256s of the segment's chunks, in their order, in hexadecimal.",
    )
    began_at: AwareDatetime = Field(description="When the work on this collection began.")
    seconds: dict[Text, Seconds] = Field(description="What took how long, by the part of the work.")
    memory_mb: float = Field(ge=0, allow_inf_nan=False, description="The most memory that the process had.")

    @property
    def key(self) -> str:
        return self.certificate_id

    @property
    def key_rule(self) -> str:
        return "the certificate's id"

    def subjects(self) -> tuple[Subject, ...]:
        return ()
