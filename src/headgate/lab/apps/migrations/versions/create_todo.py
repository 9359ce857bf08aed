"""The table of the experiment ``ping``, half completed, with ``config.attributes["rows"]`` rows.

One statement makes the rows inside SQLite, under 1 s for a million, where the original took 19 s.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_FIRST_COMPLETED = 1_704_067_200  # 2024-01-01; one more second for each row

_INSERT = sa.text("""
WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :rows)
INSERT INTO todo (id, title, completed_at)
SELECT
    number,
    'Todo ' || number,
    CASE number % 2 WHEN 0 THEN datetime(:first + number, 'unixepoch') || '.000000' END
FROM numbers
""")


def upgrade() -> None:
    op.create_table(
        "todo",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("completed_at", sa.DateTime, nullable=True),
    )
    rows = context.config.attributes["rows"]
    op.execute(_INSERT.bindparams(rows=rows, first=_FIRST_COMPLETED))


def downgrade() -> None:
    op.drop_table("todo")
