"""A pytest plugin for SQLAlchemy's tests on a PostgreSQL that comes without citext and hstore.

Their session would otherwise end before its first test. No test of the ORM, of transactions or of asyncio uses the two.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    # Imported late: SQLAlchemy's own plugin insists on being the first to import sqlalchemy.testing.
    from sqlalchemy.dialects.postgresql import provision

    provision._extensions[:] = []
