"""Every retraction of a pair, and the certificates of compactions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retractions",
        sa.Column("pair_id", postgresql.UUID(as_uuid=False), primary_key=True),
        sa.Column("event_id", sa.String, primary_key=True, comment="ce_id of the DuplicateRetracted"),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("encoder", sa.String, nullable=False),
        sa.Column("individual_a", sa.String, nullable=False),
        sa.Column("individual_b", sa.String, nullable=False),
        sa.Column(
            "revision_a", sa.BigInteger, nullable=False, comment="the revision of a at which the pair had been found"
        ),
        sa.Column("revision_b", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String, nullable=False, comment="updated, erased or threshold"),
        sa.Column("distance", sa.Double, comment="of the finding that was retracted"),
        sa.Column("threshold", sa.Double, comment="of the finding that was retracted"),
        sa.Column(
            "retracted_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="ce_time of the DuplicateRetracted",
        ),
        comment="every retraction of a pair, for good; what holds now stands in duplicates",
    )
    op.create_table(
        "certificates",
        sa.Column("certificate_id", postgresql.UUID(as_uuid=False), primary_key=True),
        sa.Column("collection", sa.String, nullable=False),
        sa.Column("encoder", sa.String),
        sa.Column("people", sa.BigInteger, nullable=False, comment="living individuals in the index"),
        sa.Column(
            "recall", sa.Double, comment="share of pairs that the index finds, measured; NULL where nobody is living"
        ),
        sa.Column("pairs_kept", sa.BigInteger, nullable=False),
        sa.Column("pairs_found", sa.BigInteger, nullable=False, comment="missed before"),
        sa.Column("pairs_retracted", sa.BigInteger, nullable=False, comment="no longer right"),
        sa.Column("in_service", sa.Boolean, nullable=False, comment="whether matchers were handed the index"),
        sa.Column(
            "certified_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="ce_time of the CompactionCertified",
        ),
        sa.Column("certificate", postgresql.JSONB, nullable=False, comment="the whole event"),
        comment="what each compaction found and built",
    )
    op.create_index("certificates_certified", "certificates", ["certified_at"])


def downgrade() -> None:
    op.drop_table("certificates")
    op.drop_table("retractions")
