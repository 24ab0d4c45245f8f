"""Who was erased, by keyed hash; what reviewers decided, which the view of duplicates goes by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Of two people the decision counts that was made last, whichever photos and encoders their pair was found by.
VERDICTS = """
CREATE VIEW pair_verdicts AS
SELECT DISTINCT ON (collection, individual_a, individual_b)
    collection, individual_a, individual_b, verdict, decided_by, note, decided_at
FROM decisions
ORDER BY collection, individual_a, individual_b, decided_at DESC, event_id DESC
"""
# Nobody is erased in it, since nobody who is has a row.
VIEW = """
CREATE OR REPLACE VIEW individual_duplicates AS
SELECT
    collection,
    individual_id,
    revision,
    CASE
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
    coalesce(found.duplicates, '{}') AS duplicates,
    CASE WHEN checked_revision = revision THEN duplicates_found END AS duplicates_found,
    coalesce(checked_revision = revision AND duplicates_found IS NOT NULL, false) AS truncated,
    coalesce(found.confirmed, '{}') AS confirmed
FROM individuals
CROSS JOIN LATERAL (
    SELECT greatest(registered_revision, encoded_revision, checked_revision, rejected_revision) AS revision
) AS latest
LEFT JOIN LATERAL (
    SELECT array_agg(other ORDER BY distance, other) FILTER (WHERE verdict IS DISTINCT FROM 'different') AS duplicates,
        array_agg(other ORDER BY distance, other) FILTER (WHERE verdict = 'same') AS confirmed
    FROM (
        SELECT individual_b AS other, distance, verdict
        FROM duplicates AS d
        LEFT JOIN LATERAL (
            SELECT verdict
            FROM decisions AS v
            WHERE (v.collection, v.individual_a, v.individual_b) = (d.collection, d.individual_a, d.individual_b)
            ORDER BY decided_at DESC, event_id DESC
            LIMIT 1
        ) AS last ON true
        WHERE d.collection = individuals.collection AND d.individual_a = individuals.individual_id
            AND retracted IS NULL
        UNION
        SELECT individual_a, distance, verdict
        FROM duplicates AS d
        LEFT JOIN LATERAL (
            SELECT verdict
            FROM decisions AS v
            WHERE (v.collection, v.individual_a, v.individual_b) = (d.collection, d.individual_a, d.individual_b)
            ORDER BY decided_at DESC, event_id DESC
            LIMIT 1
        ) AS last ON true
        WHERE d.collection = individuals.collection AND d.individual_b = individuals.individual_id
            AND retracted IS NULL
    ) AS pairs
) AS found ON true
"""
VIEW_BEFORE = """
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
    coalesce(found.duplicates, '{}') AS duplicates,
    CASE WHEN checked_revision = revision THEN duplicates_found END AS duplicates_found,
    coalesce(checked_revision = revision AND duplicates_found IS NOT NULL, false) AS truncated
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
COLUMNS_A = ["collection", "individual_a"]
COLUMNS_B = ["collection", "individual_b"]


def upgrade() -> None:
    op.create_table(
        "erased",
        sa.Column("digest", sa.String, primary_key=True, comment="HMAC-SHA-256 of collection/individual_id"),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, comment="what was said of revisions up to it is gone"),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False, comment="when Kafka had the erasure"),
        sa.Column("receipt", postgresql.JSONB, comment="what `facematch erase` saw"),
        comment="who was erased: nothing else is kept of them",
    )
    op.create_table(
        "decisions",
        sa.Column("pair_id", postgresql.UUID(as_uuid=False), primary_key=True),
        sa.Column("event_id", sa.String, primary_key=True, comment="ce_id of the PairDecided"),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("encoder", sa.String, nullable=False, comment="by which the pair was found that was reviewed"),
        sa.Column("individual_a", sa.String, nullable=False, comment="the smaller of the two ids"),
        sa.Column("individual_b", sa.String, nullable=False),
        sa.Column("verdict", sa.String, nullable=False, comment="same or different"),
        sa.Column("decided_by", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="ce_time of the PairDecided; at the latest when Kafka had it",
        ),
        comment="every decision of a reviewer, for good; what counts stands in pair_verdicts",
    )
    op.create_index("decisions_a", "decisions", [*COLUMNS_A, "individual_b"])
    op.create_index("decisions_b", "decisions", COLUMNS_B)
    op.create_index("retractions_a", "retractions", COLUMNS_A)
    op.create_index("retractions_b", "retractions", COLUMNS_B)
    op.execute(VERDICTS)
    op.execute(VIEW)
    op.drop_column("individuals", "erased_revision")


def downgrade() -> None:
    op.add_column("individuals", sa.Column("erased_revision", sa.BigInteger, comment="latest IndividualDeleted"))
    op.execute("DROP VIEW individual_duplicates")
    op.execute(VIEW_BEFORE)
    op.execute("DROP VIEW pair_verdicts")
    for side in "ab":
        op.drop_index(f"retractions_{side}", "retractions")
    op.drop_table("decisions")
    op.drop_table("erased")
