"""The pytest plugin on projects of its users': which tests fail, what they say, and that the others pass."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headgate.xray.checking
import headgate.xray.pytest_plugin  # before a project's tests, whose imports are forgotten with them

with warnings.catch_warnings(action="ignore"):  # newer versions of Starlette would rather have httpx2
    import aiosqlite  # noqa: F401
    import fastapi.testclient  # noqa: F401
    import httpx  # noqa: F401

SHOP = Path(__file__).parent / "plugin_project" / "shop.py"
ALL = "stall hold leak repeat"


class Project:
    """A user's project, and what its tests say."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        pytester.makepyfile(shop=SHOP.read_text(encoding="utf-8"))
        self.configure(ALL)

    def configure(self, kinds: str, **settings: str) -> None:
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._pytester.makeini(
            "\n".join(["[pytest]", "asyncio_default_fixture_loop_scope = function", f"headgate_xray = {kinds}", *lines])
        )

    def run(self, test: str, *args: str) -> dict[str, str]:
        """What each test failed with, by its name; '' for those that passed."""
        self._pytester.makepyfile(test_shop=PREAMBLE + test)
        recorder = self._pytester.inline_run(*OPTIONS, *args)
        failures: dict[str, str] = {}
        for report in recorder.getreports("pytest_runtest_logreport"):
            name = report.nodeid.rpartition("::")[2]
            told = [report.longreprtext] if report.failed else []
            told += [f"{title}\n{text}" for title, text in report.sections if "X-ray" in title]
            failures[name] = "\n".join([failures.get(name, ""), *told]).strip()
        return failures


PREAMBLE = """
import asyncio, time, pytest
import httpx
from contextlib import asynccontextmanager
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from shop import ONE, app, engine, fetch, kept, sync_engine
"""
OPTIONS = ("-p", "headgate_xray", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "default")


@pytest.fixture
def project(pytester: pytest.Pytester) -> Iterator[Project]:
    yield Project(pytester)
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what the project has leaked


def line_of(mark: str) -> str:
    lines = SHOP.read_text(encoding="utf-8").splitlines()
    (found,) = [number for number, line in enumerate(lines, 1) if line.endswith(mark)]
    return f"shop.py:{found} "


# the ways to call an app

WAYS = {
    "TestClient": """
@pytest.mark.parametrize("path", PATHS)
def test_path(path):
    with TestClient(app) as client:
        client.get(path)
""",
    "TestClient, a loop each": """
@pytest.mark.parametrize("path", PATHS)
def test_path(path):
    TestClient(app).get(path)
""",
    "pytest-asyncio, strict": """
@pytest.mark.asyncio
@pytest.mark.parametrize("path", PATHS)
async def test_path(path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.get(path)
""",
    "pytest-asyncio, auto": """
@pytest.fixture
async def client():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_path(path, client):
    await client.get(path)
""",
    "anyio": """
@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client(anyio_backend):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.mark.anyio
@pytest.mark.parametrize("path", PATHS)
async def test_path(path, client):
    await client.get(path)
""",
    "anyio, uvloop": """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.anyio
async def test_path(path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.get(path)
""",
}
BAD = {
    "/hold/7": (
        "hold: ",
        "# given way",
        "in fetch during GET /hold/{item}",
        "is held while asyncio.sleep is awaited, through ",
    ),
    "/gather": ("hold: ", "# gathered here", "is held while asyncio.gather is awaited"),
    "/group": ("hold: ", "# grouped here", "is held while asyncio.TaskGroup.__aexit__ is awaited"),
    "/thread": ("hold: ", "# threaded here", "is held while starlette.run_in_threadpool is awaited"),
    "/mixed": ("hold: ", "# given way", "in mixed, and nobody"),
    "/stream": ("hold: ", "# given way", "in stream.rows, and nobody"),
    "/second": ("hold: ", "# acquired here", "A second connection is acquired while the one acquired at shop.py:"),
    "/repeat": ("repeat: ", "# repeated here", "is sent 5 times: SELECT ? WHERE ? ="),
    "/repeat-sync": ("repeat: ", "# repeated in a thread", "is sent 5 times: SELECT ? WHERE ? = ?"),
    "/stall": ("stall: ", "# noqa: ASYNC251  stalled here", "The event loop stood still for "),
    "/leak": ("leak: ", "# leaked here", "is still checked out"),
    "/forgotten": ("leak: ", "# forgotten here", "the garbage collector found it"),
}
GOOD = ("/fetch-first", "/until-the-end", "/only-the-database", "/hold-ok", "/four-times")


@pytest.mark.parametrize("way", WAYS)
def test_every_fault_of_an_app_is_found_and_nothing_else(project: Project, way: str) -> None:
    mode = ("-o", "asyncio_mode=auto") if way.endswith("auto") else ()
    failures = project.run(WAYS[way].replace("PATHS", repr([*BAD, *GOOD])), *mode)
    told = {
        name.removeprefix("test_path[").rstrip("]").removeprefix("asyncio-"): text for name, text in failures.items()
    }
    assert sorted(told) == sorted([*BAD, *GOOD])
    for path, (kind, mark, *sentences) in BAD.items():
        assert told[path].startswith("headgate X-ray: 1 finding\n"), (path, told[path])
        for sentence in (kind + line_of(mark), *sentences):
            assert sentence in told[path], (path, told[path])
    assert {path: told[path] for path in GOOD} == dict.fromkeys(GOOD, "")


def test_a_websocket_that_waits_for_its_client_holds_its_connection(project: Project) -> None:
    failures = project.run(
        """
def test_socket():
    with TestClient(app) as client, client.websocket_connect("/socket") as socket:
        time.sleep(0.05)
        socket.send_text("late")
"""
    )
    assert f"hold: {line_of('# received here')}in socket during WEBSOCKET /socket" in failures["test_socket"]


# a test's own code

OWN = """
async def work(session):
    await session.execute(ONE)
    await fetch()


async def good_work(session):
    await session.execute(ONE)
    await session.rollback()
    await fetch()


@pytest.fixture
async def session():
    async with AsyncSession(engine) as session:
        yield session


@pytest.fixture
async def busy_neighbour():
    async def hold():
        async with AsyncSession(engine) as session:
            await session.execute(ONE)
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0.05)
    yield
    task.cancel()


async def test_work(session):
    await work(session)


async def test_good_work(session):
    await good_work(session)


async def test_good_work_beside_a_busy_neighbour(session, busy_neighbour):
    await good_work(session)


async def test_a_session_that_waits_for_the_app(session):
    await session.execute(ONE)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        await client.get("/fetch-first")


async def test_two_sessions_of_the_tests_own():
    async with AsyncSession(engine) as one, AsyncSession(engine) as other:
        await one.execute(ONE)
        await other.execute(ONE)


async def test_stall():
    time.sleep(0.1)


async def test_repeat(session):
    for _ in range(5):
        await session.execute(ONE)


async def test_four_times_and_a_request(session):
    for _ in range(4):
        await session.execute(ONE)


def test_sync_repeat():
    with Session(sync_engine) as session:
        for _ in range(5):
            session.execute(ONE)


def test_writes():
    with sync_engine.begin() as connection:
        connection.execute(text("CREATE TABLE a (b)"))
        for number in range(6):
            connection.execute(text("INSERT INTO a VALUES (:b)"), {"b": number})


def test_sync_leak():
    kept.append(sync_engine.connect())


@pytest.fixture
def closed_afterwards():
    sessions = []
    yield sessions
    for session in sessions:
        session.close()


def test_what_a_fixture_closes(closed_afterwards):
    closed_afterwards.append(Session(sync_engine))
    closed_afterwards[0].execute(ONE)


@pytest.fixture(scope="module")
def wide():
    with sync_engine.connect() as connection:
        yield connection


def test_what_outlives_the_test(wide):
    wide.execute(ONE)
"""


def test_a_tests_own_code_is_looked_at_too(project: Project) -> None:
    project.configure(ALL, asyncio_mode="auto")
    failures = project.run(OWN)
    found = {name: text.splitlines()[2].partition(":")[0] for name, text in failures.items() if text}
    assert found == {
        "test_work": "hold",
        "test_stall": "stall",
        "test_repeat": "repeat",
        "test_sync_repeat": "repeat",
        "test_sync_leak": "leak",
    }
    assert "headgate_xray_allow = test_shop:work" in failures["test_work"]


def test_the_own_failure_stays_primary_and_several_findings_are_one_failure(project: Project) -> None:
    failures = project.run(
        """
def test_own_failure():
    with TestClient(app) as client:
        client.get("/hold/1")
        client.get("/leak")
    assert "this" == "that"


def test_several():
    with TestClient(app) as client:
        for path in ("/hold/1", "/hold/2", "/gather", "/repeat"):
            client.get(path)


def test_skipped():
    with TestClient(app) as client:
        client.get("/leak")
    pytest.skip("for a reason")


@pytest.mark.xfail(strict=True)
def test_known():
    with TestClient(app) as client:
        client.get("/hold/1")
"""
    )
    own = failures["test_own_failure"]
    assert own.index("AssertionError") < own.index("headgate X-ray call") < own.index("headgate X-ray teardown")
    assert own.index("# given way") < own.index("# leaked here")
    assert failures["test_several"].startswith("headgate X-ray: 3 findings\n")
    assert failures["test_several"].count("Cure: ") == 3
    assert not failures["test_skipped"].startswith("headgate X-ray: ")


def test_hypothesis_examples_count_one_by_one(project: Project) -> None:
    failures = project.run(
        """
from hypothesis import given, settings, strategies as st


@settings(max_examples=8, database=None)
@given(st.integers())
def test_once_an_example(number):
    with Session(sync_engine) as session:
        session.execute(ONE)


@settings(max_examples=8, database=None)
@given(st.integers())
@pytest.mark.asyncio
async def test_hold(number):
    async with AsyncSession(engine) as session:
        await session.execute(ONE)
        await fetch()
"""
    )
    assert failures["test_once_an_example"] == ""
    assert "headgate X-ray: 1 finding\n\nhold: shop.py:" in failures["test_hold"]


# asking for it

ASKED = """
def call(*paths):
    with TestClient(app) as client:
        for path in paths:
            client.get(path)


def test_nothing():
    call("/hold/1", "/repeat")


@pytest.mark.headgate_xray
def test_all():
    call("/hold/1", "/repeat")


@pytest.mark.headgate_xray("repeat")
def test_one_kind():
    call("/hold/1", "/repeat")


@pytest.mark.headgate_xray("off")
def test_off():
    call("/hold/1", "/repeat")


@pytest.mark.headgate_xray(repeats=6, allow=["shop:hold"])
def test_settings():
    call("/hold/1", "/repeat")


@pytest.mark.headgate_xray(stall_ms=500)
def test_patience():
    call("/stall")


def test_fixture(xray):
    call("/hold/1")
    assert [finding.kind for finding in xray.findings] == ["hold"]


def test_fixture_that_allows(xray):
    xray.allow("shop:hold")
    call("/hold/1")
"""


@pytest.mark.parametrize(
    ("kinds", "failing"),
    [
        ("", {"test_all", "test_one_kind", "test_fixture"}),
        ("hold", {"test_nothing", "test_all", "test_one_kind", "test_fixture"}),
        ("leak", {"test_all", "test_one_kind", "test_fixture"}),
        ("off", {"test_all", "test_one_kind", "test_fixture"}),
    ],
)
def test_it_watches_what_asks_for_it(project: Project, kinds: str, failing: set[str]) -> None:
    project.configure(kinds)
    failures = project.run(ASKED, "--strict-markers")
    assert {name for name, text in failures.items() if text} == failing
    assert "hold: " not in failures["test_one_kind"]
    assert "repeat: " in failures["test_one_kind"]


def test_functions_are_allowed_in_the_configuration(project: Project) -> None:
    project.configure(ALL, headgate_xray_allow="shop:hold shop:repeat")
    assert project.run(ASKED)["test_nothing"] == ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("headgate_xray", "holds", "'holds' is none of stall, hold, leak, repeat, off"),
        ("headgate_xray_stall_ms", "20", "shorter stalls than 50 ms are not seen"),
        ("headgate_xray_stall_ms", "long", "could not convert"),
        ("headgate_xray_repeats", "1", "once is no repetition"),
        ("headgate_xray_allow", "shop", "write package.module:function"),
    ],
)
def test_an_option_that_cannot_be_is_refused(pytester: pytest.Pytester, name: str, value: str, message: str) -> None:
    pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\nheadgate_xray = {ALL}\n")
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_inprocess(*OPTIONS, "-o", f"{name}={value}")
    assert result.ret is pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}*"])


def test_a_marker_with_an_unknown_setting_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile("import pytest\n@pytest.mark.headgate_xray(patience=1)\ndef test_it(): pass")
    result = pytester.runpytest_inprocess(*OPTIONS)
    assert result.ret is pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_it: *'patience'*"])


# what it costs, and what it leaves alone


def test_an_error_of_ours_reaches_no_test(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("headgate.xray.driving.foreign_await", fail)
    monkeypatch.setattr("headgate.xray.checking.statement_shape", fail)
    monkeypatch.setattr("headgate.xray.loops.Loops.enter", fail)
    monkeypatch.setattr(headgate.xray.checking.Check, "_judge_second", fail)
    failures = project.run("def test_it():\n    TestClient(app).get('/hold/1')\n    TestClient(app).get('/repeat')")
    assert failures == {"test_it": ""}


def test_everything_is_put_back(project: Project) -> None:
    from sqlalchemy.engine.default import DefaultDialect
    from sqlalchemy.pool import QueuePool, base
    from starlette.applications import Starlette
    from starlette.routing import Router

    def watched() -> list[object]:
        return [
            base._finalize_fairy,
            QueuePool._do_get,
            DefaultDialect.do_execute,
            Starlette.__call__,
            Router.__call__,
            gc.callbacks.copy(),
        ]

    before = watched()
    project.run("def test_it():\n    TestClient(app).get('/hold/1')")
    assert watched() == before


IMPORT = """
import sys, time
import pytest
began = time.perf_counter()
import headgate_xray
took = time.perf_counter() - began
print(took * 1e3, [name for name in ("headgate", "sqlalchemy", "starlette", "anyio") if name in sys.modules])
"""


def test_it_costs_nothing_where_nobody_asks_for_it(pytester: pytest.Pytester) -> None:
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(3)
    ]
    assert {imported.strip() for _, imported in runs} == {"[]"}
    assert min(float(took_ms) for took_ms, _ in runs) < 2
    pytester.makepyfile("import sys\ndef test_it(): assert 'headgate' not in sys.modules")
    result = pytester.runpytest_subprocess(*OPTIONS)
    result.assert_outcomes(passed=1)
