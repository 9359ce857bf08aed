"""What this room's modules share: no lock is waited for without end, and what a test has forgotten ends with it."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator

import pytest
from sqlalchemy.engine import URL
from sqlalchemy.exc import SAWarning

from headgate.lab.connection import connect
from headgate.lab.postgres import EmbeddedPostgres

SAID_OF_STOCK_TOO: tuple[tuple[str, type[Warning]], ...] = (
    # A session that nobody closed.
    ("The garbage collector is trying to clean up non-checked-in connection", SAWarning),
    # A server-side cursor whose stream was cancelled or forgotten.
    (r"<psycopg\.(Async)?ServerCursor .* was deleted while still open", ResourceWarning),
    # A loop that was closed while connections were open, or in the turn in which they were.
    (r"<psycopg\.AsyncConnection .* was deleted while still open", ResourceWarning),
    ("unclosed connection <", ResourceWarning),
    ("unclosed transport <_SelectorSocketTransport ", ResourceWarning),
    ("unclosed <socket.socket ", ResourceWarning),
)
"""What Python says when the collector finds something; each was seen with SQLAlchemy's own pools in the same place."""


MINUTES_OF_LOAD: tuple[str, ...] = (
    "test_run_command.py",
    "test_xray_attribution.py",
    "test_xray_blocking.py",
    "test_xray_command.py",
    "test_xray_holding.py",
    "test_xray_limits.py",
    "test_xray_production.py",
)
"""The X-ray of whole services under load: together they take longer than all the rest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what takes minutes to ``make soak-xray``."""
    if os.environ.get("HEADGATE_SOAK"):
        return
    for item in items:
        if item.path.name in MINUTES_OF_LOAD:
            item.add_marker(pytest.mark.skip(reason="services under load, for minutes: make soak-xray"))


@pytest.fixture(scope="module")
def postgres_url(postgres: EmbeddedPostgres, postgres_url: URL) -> URL:
    """The module's database, where whoever waits for a lock gives up in time.

    pytest's limit ends a test once: a teardown that then waits for a lock of that very test would wait for ever.
    """
    with connect(postgres.url()) as connection:
        connection.execute(f"ALTER DATABASE {postgres_url.database} SET lock_timeout = '10s'")
    return postgres_url


@pytest.fixture
def collected(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a test has forgotten is collected in it, so that no test answers for another."""
    gc.freeze()  # what was there before is none of its business; nor need each of its own collections walk through it
    yield
    # pytest itself would keep the fixtures until the next test, and with each logged error the frames it came from.
    request.node.funcargs.clear()
    caplog.get_records("call").clear()
    gc.collect()
    gc.unfreeze()


@pytest.fixture
def as_quiet_as_stock() -> Iterator[None]:
    """What the collector says with stock too is no failure. A mark of the test's own: so ``collected`` is within it."""
    with warnings.catch_warnings():
        for message, category in SAID_OF_STOCK_TOO:
            warnings.filterwarnings("ignore", message, category)
        yield
