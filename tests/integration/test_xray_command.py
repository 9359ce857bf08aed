"""``headgate xray`` for real: apps in stock style, runs that are ended, apps that hang or do not start."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy.engine import URL

import headgate
from headgate.lab.environment import clean_environment

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sockets are handed on to the service"),
    pytest.mark.timeout(120),
]

SOURCE = Path(headgate.__file__).parents[1]

# As a shell starts it, even where the test runner itself runs with interrupts ignored.
COMMAND = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from headgate.cli.main import main; sys.exit(main(['xray', *sys.argv[1:]]))",
]

APP = """
import asyncio, os, time
from contextlib import asynccontextmanager
from fastapi import Depends, FastAPI, Header
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

LITERAL = "hush"
engine = create_async_engine(os.environ["URL"], pool_size=3, max_overflow=1)
sessions = async_sessionmaker(engine)

@asynccontextmanager
async def lifespan(app):
    yield
    await engine.dispose()
    open(os.environ["ENDED"], "w").close()

def make():
    return app

app = FastAPI(lifespan=lifespan)

async def session():
    async with sessions() as one:
        yield one

@app.get("/hold")
async def hold(s: AsyncSession = Depends(session)):
    await s.execute(text(f"SELECT '{LITERAL}', 1"))
    await asyncio.sleep(0.2)
    return {}

@app.get("/ping")
async def ping():
    return {}

@app.get("/items/{id}")
async def item(id: int):
    return id

@app.get("/stuck")
async def stuck():
    time.sleep(60)

class Order(BaseModel):
    name: str

@app.post("/orders")
async def order(order: Order, x_key: str = Header()):
    return order
"""


@pytest.fixture
def directory(tmp_path: Path, postgres_url: URL) -> Path:
    """Where the app is, and what it needs to know of the database."""
    (tmp_path / "app.py").write_text(APP)
    url = postgres_url.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
    (tmp_path / ".env").write_text(f"URL='{url}'\nENDED={tmp_path / 'ended'}\n")
    return tmp_path


def line_of(code: str) -> int:
    return next(number for number, line in enumerate(APP.splitlines(), start=1) if code in line)


def environment(**more: str) -> dict[str, str]:
    return {**clean_environment(), "PYTHONPATH": str(SOURCE), **more}


def arguments(*argv: str) -> list[str]:
    return [*COMMAND, "app:app", "--env-file", ".env", *argv]


def xray(directory: Path, *argv: str, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        argv if argv[0] == sys.executable else arguments(*argv),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=directory,
        timeout=100,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "hush" not in done.stdout + done.stderr
    return done.stdout, done.stderr


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# A whole run.


def test_a_run_names_the_database_first_and_explains(directory: Path, postgres_url: URL) -> None:
    load = ("--get", "/hold", "--get", "/ping", "--rate", "40", "--duration", "2", "--timeout", "10")
    out, err = xray(directory, *load, "--html", "x.html", "--record", "x.json")
    lines = err.splitlines()
    assert lines[:3] == [
        "starting app:app; its own start-up code runs",
        f"its database: postgresql at 127.0.0.1:{postgres_url.port}, {postgres_url.database}",
        "load: 40 requests/s for 2 s to each of 2 paths, 80/s in all",
    ]
    assert re.search(r"GET /hold   80 sent, \d+ answered", out)
    assert re.search(r"binding constraint: 4 connections ÷ 2\d\d ms held = 1\d(\.\d)? requests/s at most", out)
    assert f"asyncio.sleep at app.py:{line_of('asyncio.sleep(0.2)')}" in out
    assert "GET /ping   80 sent, 80 answered" in out
    assert (directory / "ended").exists(), "the app's own shutdown code has run"

    page = (directory / "x.html").read_text(encoding="utf-8")
    assert "SELECT ?, ?" in page
    assert "hush" not in page
    recorded = json.loads((directory / "x.json").read_text(encoding="utf-8"))
    assert (recorded["format"], recorded["about"]["app"]) == ("headgate-xray", "app:app")
    again, _ = xray(directory, *COMMAND, "--explain", "x.json")
    assert again == out
    assert sorted(path.name for path in directory.iterdir() if path.suffix in (".html", ".json")) == [
        "x.html",
        "x.json",
    ]


def test_a_run_as_json(directory: Path) -> None:
    out, _ = xray(directory, "--get", "/ping", "--duration", "0.5", "--warm-up", "0", "--json", "--loop", "asyncio")
    report = json.loads(out)
    [route] = report["routes"]
    assert (report["format"], report["version"]) == ("headgate-xray-explanation", 1)
    assert (route["route"], route["requests"], route["client"]["answered"]) == ("GET /ping", 50, 50)
    assert route["sentences"][0]["kind"] == "not saturated"


def test_requests_of_the_schema(directory: Path) -> None:
    out, err = xray(directory, "--from-openapi", "--rate", "1", "--duration", "1", "--warm-up", "0", "--timeout", "3")
    assert "left out: GET /items/{id}: needs id in its path" in err
    assert "left out: POST /orders: may change something" in err
    assert {"GET /hold", "GET /ping", "GET /stuck"} <= {line.split("   ")[0] for line in out.splitlines()}


def test_posts_and_recorded_sessions(directory: Path) -> None:
    headers = [{"name": "x-key", "value": "k"}, {"name": "Content-Type", "value": "application/json"}]
    entry = {
        "method": "POST",
        "url": "http://localhost:3000/orders?a=1",
        "headers": headers,
        "postData": {"text": '{"name": "a"}'},
    }
    (directory / "x.har").write_text(json.dumps({"log": {"entries": [{"request": entry}]}}))
    brief = ("--rate", "20", "--duration", "0.5", "--warm-up", "0", "--json")
    out, _ = xray(directory, "--har", "x.har", *brief)
    assert json.loads(out)["routes"][0]["client"]["answered"] == 10
    sent = ("--post", "/orders", "--body", '{"name": "b"}', "--header", "X-Key: k")
    out, _ = xray(directory, *sent, "--header", "Content-Type: application/json", *brief)
    assert json.loads(out)["routes"][0]["client"]["answered"] == 10


def test_a_factory_in_another_directory(directory: Path) -> None:
    (directory / "elsewhere").mkdir()
    argv = [*COMMAND, "app:make", "--factory", "--app-dir", "..", "--env-file", "../.env", "--get", "/ping"]
    out, _ = xray(directory / "elsewhere", *argv, "--rate", "10", "--duration", "0.5")
    assert "GET /ping   5 sent, 5 answered" in out


def test_a_sweep_finds_the_knee_that_it_predicts(directory: Path) -> None:
    """30 requests a second, each holding for 0.2 s, need six connections."""
    load = ("--get", "/hold", "--rate", "30", "--duration", "2", "--warm-up", "0.2", "--timeout", "10")
    out, _ = xray(directory, *load, "--sweep", "2,4,8,16", "--html", "x.html")
    rows = [re.findall(r"[\d.]+", line) for line in out.splitlines() if re.match(r"\s+\d+ +[\d.]+/s", line)]
    assert [int(row[0]) for row in rows] == [2, 4, 8, 16]
    for row in rows:
        assert float(row[2]) == pytest.approx(float(row[1]), rel=0.15)
    assert re.search(r"knee: predicted at [67] connections, so with 8 of those tried; measured: with more than 8", out)
    assert "Pool sizes: GET /hold" in (directory / "x.html").read_text(encoding="utf-8")


# A service that hangs.


def test_a_loop_that_stands_still_is_explained_in_time(directory: Path) -> None:
    began = time.monotonic()
    argv = arguments(
        "--get", "/stuck", "--get", "/ping", "--rate", "5", "--duration", "1", "--warm-up", "0", "--timeout", "2"
    )
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=directory, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while not process.stderr.readline().startswith("load:"):
            assert process.poll() is None
        began = time.monotonic()
        first = process.stdout.readline()
        took_s = time.monotonic() - began
        family = psutil.Process(process.pid).children(recursive=True)
        out = first + process.stdout.read()
    assert took_s < 1 + 2 + 5
    assert process.returncode == 0
    assert re.search(r"because of «?time.sleep\(60\).* at app.py:\d+ \(GET /stuck\)", out), out
    assert "1 of 1 requests had not ended" in out
    assert re.search(r"GET /ping   5 sent, (none|\d) answered", out)
    assert eventually(lambda: not any(map(lives, family)))


# Apps that cannot be run.


def broken(directory: Path, code: str, *argv: str) -> tuple[int, str, float]:
    (directory / "broken.py").write_text(code)
    began = time.monotonic()
    done = subprocess.run(
        [*COMMAND, *(argv or ("broken:app", "--get", "/"))],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=directory,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    assert "headgate/hosting" not in done.stderr.splitlines()[-1]
    return done.returncode, done.stderr, time.monotonic() - began


LIFESPAN = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
@asynccontextmanager
async def lifespan(app):
    {0}
    yield
app = FastAPI(lifespan=lifespan)
"""


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("import nowhere", "broken:app does not start: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1", "broken:app does not start: AttributeError: module 'broken' has no attribute 'app'"),
        ("def app(:", "broken:app does not start: SyntaxError: invalid syntax"),
        (
            LIFESPAN.format("raise RuntimeError('no table todo')"),
            "broken:app does not start: RuntimeError: no table todo",
        ),
        ("import os; os._exit(3)", "broken:app does not start: it left no word"),
        ("import sys; sys.exit('no configuration')", "broken:app does not start: no configuration"),
    ],
)
def test_an_app_that_does_not_start_leaves_its_last_words(tmp_path: Path, code: str, last: str) -> None:
    exit_code, err, _ = broken(tmp_path, code)
    assert exit_code == 1
    assert err.splitlines()[-1] == f"headgate xray: error: {last}"


ELSEWHERE = "postgresql+{driver}://u:hush@203.0.113.7/shop"


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("place", ["import", "lifespan", "request", "swallowed"])
def test_a_database_of_another_machine_is_refused(tmp_path: Path, driver: str, place: str) -> None:
    make = f"create_async_engine('{ELSEWHERE.format(driver=driver)}')"
    codes = {
        "import": f"engine = {make}\nfrom fastapi import FastAPI\napp = FastAPI()",
        "lifespan": LIFESPAN.format(make),
        "request": f"from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef get(): {make}",
        "swallowed": f"try: {make}\nexcept Exception: pass\nfrom fastapi import FastAPI\napp = FastAPI()",
    }
    code = f"from sqlalchemy.ext.asyncio import create_async_engine\n{codes[place]}"
    exit_code, err, took_s = broken(tmp_path, code)
    assert exit_code == 1
    assert "hush" not in err
    assert err.splitlines()[-1] == (
        "headgate xray: error: a database of the app is on 203.0.113.7, not on this machine, and the load would meet "
        "it: point the app at a database of your own, or say --against 203.0.113.7"
    )
    assert took_s < 15


def test_with_against_it_is_allowed(tmp_path: Path) -> None:
    code = (
        "from sqlalchemy import create_engine\nfrom fastapi import FastAPI\n"
        f"engine = create_engine('{ELSEWHERE.format(driver='psycopg')}')\n"
        "app = FastAPI()\n@app.get('/')\nasync def get(): return {}"
    )
    (tmp_path / "app.py").write_text(code)
    (tmp_path / ".env").write_text("")
    _, err = xray(tmp_path, "--get", "/", "--duration", "0.2", "--against", "203.0.113.7")
    assert "its database: postgresql at 203.0.113.7, shop" in err


DRIVERS: dict[str, tuple[str, str]] = {
    "psycopg": (
        "import psycopg\nfrom sqlalchemy import create_engine as make\n",
        "make('postgresql+psycopg://', creator=lambda: psycopg.connect(DSN))",
    ),
    "psycopg async": (
        "import psycopg\nfrom sqlalchemy.ext.asyncio import create_async_engine as make\n",
        "make('postgresql+psycopg_async://', async_creator=lambda: psycopg.AsyncConnection.connect(DSN))",
    ),
    "asyncpg": (
        "import asyncpg\nfrom sqlalchemy.ext.asyncio import create_async_engine as make\n",
        "make('postgresql+asyncpg://', async_creator=lambda: asyncpg.connect(DSN))",
    ),
    "arguments": (
        "from sqlalchemy import create_engine as make\n",
        "make('postgresql+psycopg://', connect_args=ARGUMENTS)",
    ),
}

PEERS = """
import sys
from headgate.errors import XrayError
from headgate.xray import databases
from headgate.xray.databases import Databases
DSN = {dsn!r}
ARGUMENTS = {arguments!r}
{imports}
if {is_elsewhere}:
    databases.is_this_machine = lambda host: False
known = Databases(())
for seam in known.seams(): pass
engine = {engine}
async def use():
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
try:
    if hasattr(engine, "sync_engine"):
        import asyncio
        asyncio.run(use())
    else:
        engine.connect().exec_driver_sql("SELECT 1")
except XrayError as error:
    print("barred", known.refused == str(error))
print(known.shown())
"""


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("driver", DRIVERS)
def test_where_a_function_connects_to_is_seen(
    driver: str, is_elsewhere: bool, postgres_url: URL, tmp_path: Path
) -> None:
    imports, engine = DRIVERS[driver]
    dsn = postgres_url.render_as_string(hide_password=False)
    url = postgres_url
    arguments = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    program = PEERS.format(dsn=dsn, arguments=arguments, imports=imports, engine=engine, is_elsewhere=is_elsewhere)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = ["barred True"] if is_elsewhere else []
    assert done.stdout.splitlines() == [*expected, "['postgresql at 127.0.0.1, its default database']"]


# Runs that are ended.

HANGS = "import time\nprint('hangs', flush=True)\ntime.sleep(60)\n"


@contextmanager
def started(directory: Path, *argv: str, until: str) -> Iterator[subprocess.Popen[str]]:
    env = environment(TMPDIR=str(directory))
    with subprocess.Popen(
        [*COMMAND, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=directory, text=True
    ) as process:
        try:
            assert process.stderr is not None
            while until not in (line := process.stderr.readline()):
                assert line, "it has ended"
            time.sleep(0.7)
            yield process
        finally:
            process.kill()


ENDINGS: list[Any] = [
    (signal.SIGINT, 130, "headgate xray: interrupted"),
    (signal.SIGTERM, 143, "headgate xray: terminated"),
    (signal.SIGKILL, -signal.SIGKILL, ""),
]


@pytest.mark.parametrize(("number", "code", "line"), ENDINGS)
@pytest.mark.parametrize("when", ["while it is imported", "under load", "while it hangs"])
def test_an_ended_run_leaves_nothing(directory: Path, when: str, number: signal.Signals, code: int, line: str) -> None:
    (directory / "hangs.py").write_text(HANGS)
    app = "hangs:app" if when == "while it is imported" else "app:app"
    path = "/stuck" if when == "while it hangs" else "/hold"
    until = "starting" if when == "while it is imported" else "load:"
    argv = (app, "--env-file", ".env", "--get", path, "--warm-up", "0", "--html", "x.html", "--rate", "20")
    with started(directory, *argv, until=until) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 1
        scratch = list(directory.glob("headgate-xray-*"))
        assert len(scratch) == 1
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert err.splitlines()[-1:] == ([line] if line else [])
    assert "Traceback" not in err
    assert eventually(lambda: not any(map(lives, family)), 5)
    assert time.monotonic() - began < 6
    if number != signal.SIGKILL:
        assert not any(path.exists() for path in scratch)
        assert not list(directory.glob("*x.html*"))
