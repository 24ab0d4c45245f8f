"""The tables that the sink fills and downstream reads. Migrations in `deploy/migrations` create them.

`individuals` has column groups: each belongs to one kind of event, and only a higher revision overwrites it, or a later
record of the same revision, so that the rows come out the same in whatever order revisions arrive, and however often
the log is read. The `info` of a column names its group.
The state of an individual follows from its groups: see the view `individual_duplicates`. Where several shards check an
individual, `checks` collects their reports; once all of them are there, the sum goes to `individuals`.
`duplicates` has the current statement on each pair. `retractions`, `decisions` and `certificates` only grow. An erasure
removes every row about a person from all tables; a row of `erased` is all that stays.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    cast,
    func,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData()


_REGISTERED, _ENCODED, _CHECKED, _REJECTED = (
    {"group": f"{step}_revision"} for step in ("registered", "encoded", "checked", "rejected")
)


def _time(name: str, comment: str, group: dict[str, str]) -> "Column[object]":
    return Column(name, DateTime(timezone=True), comment=comment, info=group)


individuals = Table(
    "individuals",
    metadata,
    Column("collection", String, primary_key=True),
    Column("individual_id", String, primary_key=True),
    Column(
        "registered_revision", BigInteger, comment="latest IndividualCreated or IndividualUpdated", info=_REGISTERED
    ),
    Column("photo", String, comment="URI of the photo; 'inline' where it travelled in the event", info=_REGISTERED),
    Column("attributes", JSONB, comment="what else the registration system said", info=_REGISTERED),
    _time("registered_at", "when the registration system said so (ce_time)", _REGISTERED),
    Column("content", String, comment="SHA-256 of the photo, the detector and the attributes", info=_REGISTERED),
    Column("conflicting", Boolean, comment="true where the same revision came with another content", info=_REGISTERED),
    Column("encoded_revision", BigInteger, comment="latest EncodingComputed", info=_ENCODED),
    Column("encoder", String, comment="which encoder made the embedding", info=_ENCODED),
    _time("encoded_at", "when Kafka had the embedding", _ENCODED),
    Column("detector", String, comment="what found the face", info=_ENCODED),
    Column("face", JSONB, comment="where it is in the upright photo, in pixels", info=_ENCODED),
    Column(
        "quality",
        JSONB,
        comment="how good the face is for comparing: its measures, as in the EncodingComputed",
        info=_ENCODED,
    ),
    Column("checked_revision", BigInteger, comment="latest IndividualChecked, of all shards", info=_CHECKED),
    _time("checked_at", "when Kafka had the comparison", _CHECKED),
    Column("rejected_revision", BigInteger, comment="latest EncodingRejected", info=_REJECTED),
    Column("rejection_reason", String, comment="for programs", info=_REJECTED),
    Column("rejection_detail", String, comment="for people", info=_REJECTED),
    _time("rejected_at", "when Kafka had the rejection", _REJECTED),
    Column(
        "duplicates_found",
        BigInteger,
        comment="by the check, where it found more than it published; else NULL",
        info=_CHECKED,
    ),
    Index("individuals_conflicting", "collection", "individual_id", postgresql_where=text("conflicting")),
    comment="every individual, and how far each got",
)


def column_groups() -> dict[str, tuple[str, ...]]:
    """The columns of `individuals` that one kind of event writes, by the revision column that guards them.

    Each group has its guard first. An erasure empties whole groups. Raises KeyError of a column without a group.
    """
    groups: dict[str, list[str]] = {}
    for column in individuals.columns:
        if not column.primary_key:
            groups.setdefault(column.info["group"], []).append(column.name)
    return {guard: tuple(sorted(names, key=lambda name: name != guard)) for guard, names in groups.items()}


checks = Table(
    "checks",
    metadata,
    Column("collection", String, primary_key=True),
    Column("individual_id", String, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("shards", Integer, primary_key=True, autoincrement=False),
    Column("duplicates", ARRAY(Integer), nullable=False, comment="found by each shard; NULL until it has reported"),
    Column("truncated", Boolean, nullable=False, comment="whether one of them found more than it published"),
    Column("checked_at", DateTime(timezone=True), nullable=False, comment="when Kafka had the latest report"),
    comment="what each of several shards says of a revision of an individual",
)

duplicates = Table(
    "duplicates",
    metadata,
    Column("pair_id", UUID(as_uuid=False), primary_key=True),
    Column("collection", String, nullable=False),
    Column("encoder", String, nullable=False),
    Column("individual_a", String, nullable=False, comment="the smaller of the two ids"),
    Column("individual_b", String, nullable=False),
    Column("revision_a", BigInteger, nullable=False, comment="the revision of a that was compared"),
    Column("revision_b", BigInteger, nullable=False),
    Column("distance", Double, comment="Euclidean; NULL once retracted before it was ever found"),
    Column("threshold", Double),
    Column("retracted", String, comment="why the pair no longer holds; NULL while it holds"),
    Column("found_at", DateTime(timezone=True), nullable=False, comment="ce_time of the event behind this row"),
    Column(
        "recorded_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="when this row was first written",
    ),
    CheckConstraint('individual_a COLLATE "C" < individual_b COLLATE "C"', name="duplicates_in_order"),
    Index("duplicates_a", "collection", "individual_a"),
    Index("duplicates_b", "collection", "individual_b"),
    Index("duplicates_recorded", "recorded_at", "pair_id"),
    Index(
        "duplicates_holding",
        "collection",
        "individual_a",
        "individual_b",
        postgresql_where=text("retracted IS NULL"),
    ),
    comment="pairs of registrations that look like the same person: candidates for review, never verdicts",
)

retractions = Table(
    "retractions",
    metadata,
    Column("pair_id", UUID(as_uuid=False), primary_key=True),
    Column("event_id", String, primary_key=True, comment="ce_id of the DuplicateRetracted"),
    Column("collection", String, nullable=False),
    Column("encoder", String, nullable=False),
    Column("individual_a", String, nullable=False),
    Column("individual_b", String, nullable=False),
    Column("revision_a", BigInteger, nullable=False, comment="the revision of a at which the pair had been found"),
    Column("revision_b", BigInteger, nullable=False),
    Column("reason", String, nullable=False, comment="updated, erased or threshold"),
    Column("distance", Double, comment="of the finding that was retracted"),
    Column("threshold", Double, comment="of the finding that was retracted"),
    Column("retracted_at", DateTime(timezone=True), nullable=False, comment="ce_time of the DuplicateRetracted"),
    Index("retractions_a", "collection", "individual_a"),
    Index("retractions_b", "collection", "individual_b"),
    comment="every retraction of a pair, for good; what holds now stands in duplicates",
)

decisions = Table(
    "decisions",
    metadata,
    Column("pair_id", UUID(as_uuid=False), primary_key=True),
    Column("event_id", String, primary_key=True, comment="ce_id of the PairDecided"),
    Column("collection", String, nullable=False),
    Column("encoder", String, nullable=False, comment="by which the pair was found that was reviewed"),
    Column("individual_a", String, nullable=False, comment="the smaller of the two ids"),
    Column("individual_b", String, nullable=False),
    Column("verdict", String, nullable=False, comment="same or different"),
    Column("decided_by", String, nullable=False),
    Column("note", String, nullable=False),
    Column(
        "decided_at",
        DateTime(timezone=True),
        nullable=False,
        comment="ce_time of the PairDecided; at the latest when Kafka had it",
    ),
    Index("decisions_a", "collection", "individual_a", "individual_b"),
    Index("decisions_b", "collection", "individual_b"),
    comment="every decision of a reviewer, for good; what counts stands in pair_verdicts",
)

erased = Table(
    "erased",
    metadata,
    Column("digest", String, primary_key=True, comment="HMAC-SHA-256 of collection/individual_id"),
    Column("collection", String, nullable=False),
    Column("revision", BigInteger, nullable=False, comment="what was said of revisions up to it is gone"),
    Column("erased_at", DateTime(timezone=True), nullable=False, comment="when Kafka had the erasure"),
    Column("receipt", JSONB, comment="what `facematch erase` saw"),
    comment="who was erased: nothing else is kept of them",
)

certificates = Table(
    "certificates",
    metadata,
    Column("certificate_id", UUID(as_uuid=False), primary_key=True),
    Column("collection", String, nullable=False),
    Column("encoder", String),
    Column("people", BigInteger, nullable=False, comment="living individuals in the index"),
    Column("recall", Double, comment="share of pairs that the index finds, measured; NULL where nobody is living"),
    Column("pairs_kept", BigInteger, nullable=False),
    Column("pairs_found", BigInteger, nullable=False, comment="missed before"),
    Column("pairs_retracted", BigInteger, nullable=False, comment="no longer right"),
    Column("in_service", Boolean, nullable=False, comment="whether matchers were handed the index"),
    Column("certified_at", DateTime(timezone=True), nullable=False, comment="ce_time of the CompactionCertified"),
    Column("certificate", JSONB, nullable=False, comment="the whole event"),
    Index("certificates_certified", "certified_at"),
    comment="what each compaction found and built",
)

deployment = Table(
    "deployment",
    metadata,
    Column(
        "database_id",
        UUID(as_uuid=False),
        primary_key=True,
        server_default=func.gen_random_uuid(),
        comment="the topic deployment has it too",
    ),
    comment="one row: which database this is",
)

_views = MetaData()  # made by migrations: not among the tables

pair_verdicts = Table(
    "pair_verdicts",
    _views,
    Column("collection", String),
    Column("individual_a", String),
    Column("individual_b", String),
    Column("verdict", String),
    Column("decided_by", String),
    Column("note", String),
    Column("decided_at", DateTime(timezone=True)),
)

individual_duplicates = Table(
    "individual_duplicates",
    _views,
    Column("collection", String),
    Column("individual_id", String),
    Column("revision", BigInteger),
    Column("state", String),
    Column("photo", String),
    Column("attributes", JSONB),
    Column("registered_at", DateTime(timezone=True)),
    Column("rejection_reason", String),
    Column("rejection_detail", String),
    Column("duplicates", ARRAY(String)),
    Column("duplicates_found", BigInteger),
    Column("truncated", Boolean),
    Column("confirmed", ARRAY(String)),
    Column("conflicting", Boolean),
    Column("detector", String),
    Column("face", JSONB),
    Column("quality", JSONB),
)


def pair_version(pair: Any) -> ColumnElement[Any]:
    """The SQL form of `schemas.events.pairs.Version`, of columns of `duplicates`: such rows compare by < and >."""
    revisions = cast(pair.revision_a, Numeric) + cast(pair.revision_b, Numeric)  # a bigint may not hold the sum
    return tuple_(revisions, pair.found_at)
