"""With each embedding stand what found the face, where it is, and how good it is for comparing."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LAST = "    coalesce(conflicting, false) AS conflicting\n"
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
VIEW = VIEW_BEFORE.replace("CREATE VIEW", "CREATE OR REPLACE VIEW").replace(
    _LAST,
    _LAST.replace("\n", ",\n")
    + ",\n".join(
        f"    CASE WHEN encoded_revision = revision THEN {name} END AS {name}"
        for name in ("detector", "face", "quality")
    )
    + "\n",
)


def upgrade() -> None:
    quality = "how good the face is for comparing: its measures, as in the EncodingComputed"
    op.add_column("individuals", sa.Column("detector", sa.String, comment="what found the face"))
    op.add_column(
        "individuals", sa.Column("face", postgresql.JSONB, comment="where it is in the upright photo, in pixels")
    )
    op.add_column("individuals", sa.Column("quality", postgresql.JSONB, comment=quality))
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW individual_duplicates")
    op.execute(VIEW_BEFORE)
    for column in ("quality", "face", "detector"):
        op.drop_column("individuals", column)
