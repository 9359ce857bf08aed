"""Alembic's entry: migrates over the connection that the caller put into ``config.attributes``."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
