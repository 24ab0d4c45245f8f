"""A database has an id: Kafka knows by it which database a namespace writes to."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if sa.inspect(op.get_bind()).has_table("deployment"):
        return
    op.create_table(
        "deployment",
        sa.Column(
            "database_id",
            postgresql.UUID(as_uuid=False),
            primary_key=True,
            server_default=sa.func.gen_random_uuid(),
            comment="the topic deployment has it too",
        ),
        comment="one row: which database this is",
    )
    op.execute("INSERT INTO deployment DEFAULT VALUES")


def downgrade() -> None:
    """The table stays: whichever tables it has, it is the same database."""
