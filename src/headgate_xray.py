"""The pytest plugin ``headgate_xray``, off until a project, a test or a fixture asks for it.

pytest imports this module in every project that is tested where Headgate is installed. It stands outside the package,
whose import is SQLAlchemy's as well, and imports nothing of it before a test is to be watched. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headgate.xray.checking import Check

NAME = "headgate_xray"
FIXTURE = "xray"
WATCHING = "headgate_xray_watching"
"""The plugin that does the work is registered by this name."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of pytest.ini and pyproject.toml."""
    parser.addini(NAME, "what fails a test: any of stall, hold, leak, repeat", "args", default=[])
    parser.addini(f"{NAME}_allow", "functions that may do it, as package.module:function", "args", default=[])
    parser.addini(f"{NAME}_stall_ms", "how long code may keep the event loop, in ms; at least 50", default="50")
    parser.addini(f"{NAME}_repeats", "how often one line may not send the same query", default="5")


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the marker."""
    config.addinivalue_line(
        "markers",
        f"{NAME}(*kinds, stall_ms=50, repeats=5, allow=()): fail if the test stalls the event loop, holds a connection "
        "across a foreign await, leaks one or repeats a query; kinds: stall, hold, leak, repeat (all by default), off.",
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Get ready, if anything is to be watched."""
    config = session.config
    by_default = bool(config.getini(NAME))
    asked = [item for item in session.items if by_default or _asks(item)]
    if not asked or config.getoption("collectonly"):
        return
    from headgate.xray.pytest_plugin import Watching

    config.pluginmanager.register(Watching(config, asked, _asks_for_fixture), WATCHING)


def _asks(item: pytest.Item) -> bool:
    return item.get_closest_marker(NAME) is not None or _asks_for_fixture(item)


def _asks_for_fixture(item: pytest.Item) -> bool:
    """Whether a test has the fixture, and no project has another one of that name."""
    if not isinstance(item, pytest.Function) or FIXTURE not in item.fixturenames:
        return False
    found = item._fixtureinfo.name2fixturedefs.get(FIXTURE, ())
    return bool(found) and found[-1].func.__module__ == __name__


@pytest.fixture(name=FIXTURE)
def xray_fixture(request: pytest.FixtureRequest) -> Check:
    """Watch this test. ``xray.findings`` is what was found so far; ``xray.allow("package.module:function")`` allows."""
    watching = request.config.pluginmanager.get_plugin(WATCHING)
    check: Check | None = getattr(watching, "check", None)
    if check is None:
        raise pytest.UsageError("the fixture xray is an argument of the test; it cannot be asked for in its midst")
    return check
