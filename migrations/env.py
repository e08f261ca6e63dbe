"""How Alembic runs the migrations: on the connection, and in the transaction, of ``epochd.store.migrate``."""

from alembic import context

from epochd.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_server_default=True,
    render_as_batch=True,  # SQLite alters most things only by copying the table
)
with context.begin_transaction():
    context.run_migrations()
