"""The pytest fixture; pytest is imported only by whoever asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from headgate.database import Database

Scope = Literal["session", "package", "module", "class", "function"]


def rolled_back_fixture(db: Database, *, scope: Scope = "function", autouse: bool = False) -> Any:
    """A pytest fixture around each test (or class, module, …): whatever goes through ``db`` is undone after it.

    For sync and async tests alike; in ``conftest.py``: ``rolled_back = rolled_back_fixture(db, autouse=True)``.
    The fixture's value is ``db``.
    """
    import pytest

    @pytest.fixture(scope=scope, autouse=autouse)
    def rolled_back() -> Iterator[Database]:
        with db.rolled_back():
            yield db

    return rolled_back
