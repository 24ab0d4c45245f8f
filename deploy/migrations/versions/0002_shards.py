"""What several shards say of an individual; how many duplicates a check found where not all are listed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

VIEW = """
CREATE OR REPLACE VIEW individual_duplicates AS
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
        "checks",
        sa.Column("collection", sa.String, primary_key=True),
        sa.Column("individual_id", sa.String, primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("shards", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(
            "duplicates",
            postgresql.ARRAY(sa.Integer),
            nullable=False,
            comment="found by each shard; NULL until it has reported",
        ),
        sa.Column("truncated", sa.Boolean, nullable=False, comment="whether one of them found more than it published"),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False, comment="when Kafka had the latest report"),
        comment="what each of several shards says of a revision of an individual",
    )
    op.add_column(
        "individuals",
        sa.Column(
            "duplicates_found", sa.BigInteger, comment="by the check, where it found more than it published; else NULL"
        ),
    )
    _comment_on_checked_revision("latest IndividualChecked, of all shards")
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW individual_duplicates")
    op.drop_column("individuals", "duplicates_found")
    _comment_on_checked_revision("latest IndividualChecked")
    op.drop_table("checks")
    op.execute(VIEW_BEFORE)


def _comment_on_checked_revision(comment: str) -> None:
    op.alter_column("individuals", "checked_revision", comment=comment)
