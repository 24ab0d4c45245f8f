"""Alembic's entry: `deploy.setup.tables.create_tables` hands over the connection."""

from alembic import context

from schemas.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
