"""Who was rejected, and is encoded at the same revision since (by a replay, say), has no reason for a rejection."""

from importlib import import_module

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

before = import_module("deploy.migrations.versions.0004_erased_and_decisions")
BEFORE = before.VIEW.format(**before.WITH_VERDICTS)
AFTER = BEFORE.replace(
    "CASE WHEN rejected_revision = revision THEN rejection_",
    "CASE WHEN revision IN (checked_revision, encoded_revision) THEN NULL"
    " WHEN rejected_revision = revision THEN rejection_",
)


def upgrade() -> None:
    op.execute(AFTER)


def downgrade() -> None:
    op.execute(BEFORE)
