"""Whose revision was registered with two contents; both are compared by their SHA-256, `content`.

Two indexes of pairs: by which they are counted, and listed page by page. The comments of two times say what is in them
by now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

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
    CASE
        WHEN revision IN (checked_revision, encoded_revision) THEN NULL
        WHEN rejected_revision = revision THEN rejection_reason
    END AS rejection_reason,
    CASE
        WHEN revision IN (checked_revision, encoded_revision) THEN NULL
        WHEN rejected_revision = revision THEN rejection_detail
    END AS rejection_detail,
    coalesce(found.duplicates, '{}') AS duplicates,
    CASE WHEN checked_revision = revision THEN duplicates_found END AS duplicates_found,
    coalesce(checked_revision = revision AND duplicates_found IS NOT NULL, false) AS truncated,
    coalesce(found.confirmed, '{}') AS confirmed,
    coalesce(conflicting, false) AS conflicting
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
        WHEN checked_revision = revision THEN 'checked'
        WHEN encoded_revision = revision THEN 'encoded'
        WHEN rejected_revision = revision THEN 'rejected'
        ELSE 'registered'
    END AS state,
    photo,
    attributes,
    registered_at,
    CASE
        WHEN revision IN (checked_revision, encoded_revision) THEN NULL
        WHEN rejected_revision = revision THEN rejection_reason
    END AS rejection_reason,
    CASE
        WHEN revision IN (checked_revision, encoded_revision) THEN NULL
        WHEN rejected_revision = revision THEN rejection_detail
    END AS rejection_detail,
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

COMMENTS = {
    ("decisions", "decided_at"): (
        "ce_time of the PairDecided",
        "ce_time of the PairDecided; at the latest when Kafka had it",
    ),
    ("erased", "erased_at"): ("ce_time of the IndividualDeleted", "when Kafka had the erasure"),
}


def upgrade() -> None:
    for (table, column), (before, now) in COMMENTS.items():
        op.alter_column(table, column, comment=now, existing_comment=before)
    content = "SHA-256 of the photo, the detector and the attributes"
    conflicting = "true where the same revision came with another content"
    op.add_column("individuals", sa.Column("content", sa.String, comment=content))
    op.add_column("individuals", sa.Column("conflicting", sa.Boolean, comment=conflicting))
    op.create_index(
        "individuals_conflicting",
        "individuals",
        ["collection", "individual_id"],
        postgresql_where=sa.text("conflicting"),
    )
    op.execute(VIEW)
    op.create_index(
        "duplicates_holding",
        "duplicates",
        ["collection", "individual_a", "individual_b"],
        postgresql_where=sa.text("retracted IS NULL"),
    )
    op.drop_index("duplicates_recorded", "duplicates")
    op.create_index("duplicates_recorded", "duplicates", ["recorded_at", "pair_id"])


def downgrade() -> None:
    for (table, column), (before, now) in COMMENTS.items():
        op.alter_column(table, column, comment=before, existing_comment=now)
    op.drop_index("duplicates_recorded", "duplicates")
    op.create_index("duplicates_recorded", "duplicates", ["recorded_at"])
    op.drop_index("duplicates_holding", "duplicates")
    op.execute("DROP VIEW individual_duplicates")
    op.execute(VIEW_BEFORE)
    op.drop_index("individuals_conflicting", "individuals")
    op.drop_column("individuals", "conflicting")
    op.drop_column("individuals", "content")
