"""Alembic's entry: runs migrations on the connection that `radia.operations.schema` opened, in its transaction."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table=context.config.get_main_option("version_table"))
context.run_migrations()
