"""Individuals, the pairs found among them, and the view that shows each individual with its duplicates."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VIEW = """
CREATE VIEW individual_duplicates AS
SELECT
    collection,
    individual_id,
    revision,
    CASE
        WHEN erased_revision = revision THEN 'erased'
        WHEN checked_revision = revision THEN 'checked'
        WHEN encoded_revision = revision THEN 'encoded'
        WHEN rejected_revision = revision THEN 'rejected'
        ELSE 'registered'
    END AS state,
    photo,
    attributes,
    registered_at,
    CASE WHEN rejected_revision = revision THEN rejection_reason END AS rejection_reason,
    CASE WHEN rejected_revision = revision THEN rejection_detail END AS rejection_detail,
    coalesce(found.duplicates, '{}') AS duplicates
FROM individuals
CROSS JOIN LATERAL (
    SELECT greatest(
        registered_revision, encoded_revision, checked_revision, rejected_revision, erased_revision
    ) AS revision
) AS latest
LEFT JOIN LATERAL (
    SELECT array_agg(other ORDER BY distance, other) AS duplicates
    FROM (
        SELECT individual_b AS other, distance
        FROM duplicates AS d
        WHERE d.collection = individuals.collection AND d.individual_a = individuals.individual_id
            AND retracted IS NULL
        UNION
        SELECT individual_a, distance
        FROM duplicates AS d
        WHERE d.collection = individuals.collection AND d.individual_b = individuals.individual_id
            AND retracted IS NULL
    ) AS pairs
) AS found ON true
"""


def upgrade() -> None:
    op.create_table(
        "individuals",
        sa.Column("collection", sa.String, primary_key=True),
        sa.Column("individual_id", sa.String, primary_key=True),
        sa.Column("registered_revision", sa.BigInteger, comment="latest IndividualCreated or IndividualUpdated"),
        sa.Column("photo", sa.String, comment="URI of the photo; 'inline' where it travelled in the event"),
        sa.Column("attributes", postgresql.JSONB, comment="what else the registration system said"),
        _time("registered_at", "when the registration system said so (ce_time)"),
        sa.Column("encoded_revision", sa.BigInteger, comment="latest EncodingComputed"),
        sa.Column("encoder", sa.String, comment="which encoder made the embedding"),
        _time("encoded_at", "when Kafka had the embedding"),
        sa.Column("checked_revision", sa.BigInteger, comment="latest IndividualChecked"),
        _time("checked_at", "when Kafka had the comparison"),
        sa.Column("rejected_revision", sa.BigInteger, comment="latest EncodingRejected"),
        sa.Column("rejection_reason", sa.String, comment="for programs"),
        sa.Column("rejection_detail", sa.String, comment="for people"),
        _time("rejected_at", "when Kafka had the rejection"),
        sa.Column("erased_revision", sa.BigInteger, comment="latest IndividualDeleted"),
        comment="every individual, and how far each got",
    )
    op.create_table(
        "duplicates",
        sa.Column("pair_id", postgresql.UUID(as_uuid=False), primary_key=True),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("encoder", sa.String, nullable=False),
        sa.Column("individual_a", sa.String, nullable=False, comment="the smaller of the two ids"),
        sa.Column("individual_b", sa.String, nullable=False),
        sa.Column("revision_a", sa.BigInteger, nullable=False, comment="the revision of a that was compared"),
        sa.Column("revision_b", sa.BigInteger, nullable=False),
        sa.Column("distance", sa.Double, comment="Euclidean; NULL once retracted before it was ever found"),
        sa.Column("threshold", sa.Double),
        sa.Column("retracted", sa.String, comment="why the pair no longer holds; NULL while it holds"),
        sa.Column(
            "found_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="ce_time of the event behind this row",
        ),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
            comment="when this row was first written",
        ),
        sa.CheckConstraint('individual_a COLLATE "C" < individual_b COLLATE "C"', name="duplicates_in_order"),
        comment="pairs of registrations that look like the same person: candidates for review, never verdicts",
    )
    op.create_index("duplicates_a", "duplicates", ["collection", "individual_a"])
    op.create_index("duplicates_b", "duplicates", ["collection", "individual_b"])
    op.create_index("duplicates_recorded", "duplicates", ["recorded_at"])
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW individual_duplicates")
    op.drop_table("duplicates")
    op.drop_table("individuals")


def _time(name: str, comment: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), comment=comment)
