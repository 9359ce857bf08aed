"""For the test suites of apps: blocks and a pytest fixture in which everything done to the database is undone."""

from headgate.testing.fixture import rolled_back_fixture
from headgate.testing.rolled_back import RolledBack

__all__ = ["RolledBack", "rolled_back_fixture"]
