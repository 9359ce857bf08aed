"""``headgate run`` and ``attach`` with real servers: the log names the line, and all else is as without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from headgate.cli.run import with_preload

from .run_command import APP, SOURCE, Started, eventually, line_of, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks, as POSIX has them")

PYTHON = (sys.executable, "-m")
UVICORN = (*PYTHON, "uvicorn", "stock_app:app", "--port", "PORT")
GUNICORN = (*PYTHON, "gunicorn", "stock_app:app", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:PORT")
HYPERCORN = (*PYTHON, "hypercorn", "stock_app:app", "-b", "127.0.0.1:PORT")
GRANIAN = (*PYTHON, "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "PORT", "stock_app:app")

SERVERS = {
    "uvicorn": (UVICORN, ("uvicorn",)),
    "uvicorn-workers": ((*UVICORN, "--workers", "2"), ("uvicorn",)),
    "uvicorn-reload": ((*UVICORN, "--reload"), ("uvicorn",)),
    "gunicorn": ((*GUNICORN, "-w", "2"), ("gunicorn", "uvicorn_worker")),
    "gunicorn-preload": ((*GUNICORN, "-w", "2", "--preload"), ("gunicorn", "uvicorn_worker")),
    "hypercorn": (HYPERCORN, ("hypercorn",)),
    "hypercorn-workers": ((*HYPERCORN, "-w", "2"), ("hypercorn",)),
    "granian": (GRANIAN, ("granian",)),
    "granian-workers": ((*GRANIAN, "--workers", "2"), ("granian",)),
}
MASTERS = ("uvicorn-workers", "uvicorn-reload", "gunicorn", "hypercorn-workers", "granian-workers")
"""Those whose first process never imports the app."""


ALL_ARE_UP = {"granian-workers": ("Started worker-1", "Started worker-2")}
"""It does not end if it is told to while one of its workers starts, with or without us."""


def server(name: str) -> tuple[str, ...]:
    command, needed = SERVERS[name]
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return command


def exhaust(service: Started, path: str = "/slow/1.5") -> None:
    """More at once than a pool of two has; twelve, so that one of two workers surely has three."""
    assert 500 in service.get_at_once(path, 12)


HELD = (
    f"by GET /slow/{{seconds}}: acquired at {line_of('acquires')}, "
    f"now at {line_of('holds')} awaiting asyncio.sleep, for "
)


@pytest.mark.parametrize("name", SERVERS)
def test_a_stock_timeout_names_the_line_that_holds(name: str, tmp_path: Path) -> None:
    with start(tmp_path, server(name)) as service:
        service.wait_until_up()
        exhaust(service)
        service.wait_for("stock.db: no connection came free within 500 ms")
        service.wait_for(HELD)
        log = service.log
    assert "State: in use 2 of 2, idle 0, pending " in log
    assert (
        f"Remedies: 1. let GET /slow/{{seconds}} commit, or close its session, before it awaits at {line_of('holds')}"
        in log
    )
    assert "hunterhunter" not in log
    assert "headgate:" not in log
    assert "headgate run:" not in log


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", MASTERS)
def test_a_process_that_does_not_import_the_app_does_not_import_sqlalchemy(name: str, tmp_path: Path) -> None:
    with start(tmp_path, server(name)) as service:
        service.wait_until_up()
        maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "python" in maps
    assert "greenlet" not in maps, "SQLAlchemy and Headgate load it"


def test_a_reloaded_app_is_watched_too(tmp_path: Path) -> None:
    with start(tmp_path, server("uvicorn-reload")) as service:
        service.wait_until_up()
        app = tmp_path / "stock_app.py"
        app.write_text(app.read_text().replace('"/ping"', '"/reloaded"'))
        os.utime(app)
        assert eventually_get(service, "/reloaded")
        exhaust(service)
        service.wait_for(HELD)


def eventually_get(service: Started, path: str) -> bool:
    return eventually(lambda: service.get(path) == 200, 30)


TERM, CTRL_C = (signal.SIGTERM, False), (signal.SIGINT, True)


@pytest.mark.parametrize(
    ("name", "number", "whole_group"),
    [
        *(pytest.param(name, *TERM, id=f"{name}-supervisor") for name in SERVERS if name != "gunicorn-preload"),
        *(pytest.param(name, *CTRL_C, id=f"{name}-ctrl-c") for name in ("uvicorn", "gunicorn", "hypercorn", "granian")),
    ],
)
def test_signals_and_exit_codes_are_the_servers_own(
    name: str, number: signal.Signals, whole_group: bool, tmp_path: Path
) -> None:
    codes = []
    for run in (None, ()):
        with start(tmp_path, server(name), run=run) as service:
            service.wait_until_up()
            for text in ALL_ARE_UP.get(name, ()):
                service.wait_for(text)
            codes.append(service.end_by(number, whole_group=whole_group))
    stock, watched = codes
    assert watched == stock


def test_the_exit_code_of_a_failure_is_the_servers_own(tmp_path: Path) -> None:
    command = [word.replace("stock_app:app", "stock_app:nothing") for word in server("uvicorn")]
    codes = []
    for run in (None, ()):
        with start(tmp_path, command, run=run) as service:
            codes.append(service.process.wait(30))
    assert codes[0] == codes[1] != 0


def test_a_python_program_that_starts_its_server_itself(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import sys, uvicorn\nfrom stock_app import app\nuvicorn.run(app, port=int(sys.argv[1]))\n"
    )
    with start(tmp_path, (sys.executable, "main.py", "PORT")) as service:
        service.wait_until_up()
        exhaust(service)
        service.wait_for(HELD)


def test_a_sync_endpoint_names_the_line_of_its_thread(tmp_path: Path) -> None:
    with start(tmp_path, server("uvicorn")) as service:
        service.wait_until_up()
        exhaust(service, "/sync/1.5")
        service.wait_for(
            f"2 by GET /sync/{{seconds}}: acquired at {line_of('acquires in a thread')}, "
            f"now at {line_of('holds in a thread')} running its own code, for "
        )


def test_requests_that_take_two_connections_are_told_apart(tmp_path: Path) -> None:
    with start(tmp_path, server("uvicorn")) as service:
        service.wait_until_up()
        exhaust(service, "/twice")
        service.wait_for(
            f"2 by GET /twice: acquired at {line_of('acquires the first')}, "
            f"now at {line_of('asks for the second')} asking for one more connection, for "
        )
        service.wait_for(f"1. let {line_of('asks for the second')} use the session that holds a connection already")


def test_overdue_holds_and_leaks_are_reported_and_taken_back(tmp_path: Path) -> None:
    with start(tmp_path, server("uvicorn"), run=("--overdue", "0.5")) as service:
        service.wait_until_up()
        assert service.get("/slow/1.5") == 200
        service.wait_for("1 connection has been held for more than 500 ms.\n")
        service.wait_for(f"  1 {HELD}")
        service.wait_for("1 connection reported above has come back.\n")
    with start(tmp_path, server("uvicorn")) as service:
        service.wait_until_up()
        assert service.get("/leak") == 200
        service.wait_for("1 connection was not given back by whoever acquired it.\n")
        service.wait_for(f"  1 by GET /leak: acquired at {line_of('leaks')}, its request is over, for ")
        assert service.get("/close") == 200
        service.wait_for("1 connection reported above has come back.\n")
        assert service.log.count("/leak: acquired") == 2


# in a process of ones own


def python(code: str, tmp_path: Path, *paths: Path, watched: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), str(SOURCE)])}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=with_preload(environment) if watched else environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )


def test_a_process_without_the_libraries_is_left_as_it_is(tmp_path: Path) -> None:
    code = "import sys; print(sorted(sys.modules)); print(sys.path)"
    stock, watched = (python(code, tmp_path, watched=watched).stdout.splitlines() for watched in (False, True))
    assert watched[1] == stock[1]
    assert set(eval(watched[0])) - set(eval(stock[0])) <= {"sitecustomize", "__future__"}


WRAPPED = """
import fastapi.routing
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import QueuePool
from starlette.applications import Starlette
print([one.__module__.partition(".")[0] for one in (
    QueuePool._do_get, DefaultDialect.do_execute, Starlette.__call__, fastapi.routing.serialize_response)])
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import sqlalchemy",
        "import fastapi, sqlalchemy",
        "import sqlalchemy, fastapi",
        "import starlette.applications, sqlalchemy.orm, fastapi",
        "import headgate",
        "import headgate.fastapi",
        "import fastapi, headgate.xray",
        "import headgate.xray; headgate.xray.attach()",
        "import sqlalchemy; import headgate.xray; headgate.xray.attach()",
    ],
)
def test_the_hooks_are_there_whatever_is_imported_first(imports: str, tmp_path: Path) -> None:
    done = python(imports + WRAPPED, tmp_path)
    assert done.stderr == ""
    assert eval(done.stdout) == ["headgate"] * 4


def test_the_sitecustomize_that_is_hidden_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; print('theirs', __name__, sys.modules[__name__].__file__)")
    done = python("import sitecustomize; print(sitecustomize.__file__)", tmp_path, tmp_path)
    theirs = str(tmp_path / "sitecustomize.py")
    assert done.stdout.splitlines() == [f"theirs sitecustomize {theirs}", theirs]


def test_the_sitecustomize_that_is_hidden_fails_as_it_would(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import no_such_module")
    stock, watched = (
        python("import sqlalchemy; print('goes on')", tmp_path, tmp_path, watched=watched) for watched in (False, True)
    )
    assert watched.stdout == stock.stdout == "goes on\n"
    assert watched.stderr == stock.stderr


def test_a_process_that_cannot_be_watched_goes_on(tmp_path: Path) -> None:
    (tmp_path / "headgate").mkdir()
    (tmp_path / "headgate" / "__init__.py").write_text("raise ImportError('not\\nhere')")
    done = python("import sqlalchemy, fastapi; print('goes on')", tmp_path, tmp_path)
    assert done.stdout == "goes on\n"
    assert done.stderr == f"headgate run: {sys.executable} is not watched: ImportError: not here\n"


def test_an_option_that_makes_no_sense_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_XRAY_OVERDUE", "soon")
    done = python("import sqlalchemy; print('goes on')", tmp_path)
    assert done.stdout == "goes on\n"
    assert done.stderr.count("\n") == 1
    assert "ConfigError: HEADGATE_XRAY_OVERDUE='soon' is no time" in done.stderr


def test_the_xray_is_importable_without_the_extras(tmp_path: Path) -> None:
    for package in ("starlette", "fastapi", "anyio", "uvicorn", "httptools", "psutil", "psycopg", "asyncpg"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('an extra')")
    code = """
from headgate.xray import attach
from sqlalchemy import create_engine
watch = attach(None)
with create_engine("sqlite:///a.db").connect():
    assert len(watch.live.holds) == 1
"""
    assert python(code, tmp_path, tmp_path, watched=False).stderr == ""


ATTACHED = """
from headgate.xray import attach
from sqlalchemy.pool import QueuePool
from starlette.applications import Starlette
stock = QueuePool._do_get, Starlette.__call__
watch = attach(object())
assert attach() is watch
wrapped = QueuePool._do_get, Starlette.__call__
assert not set(stock) & set(wrapped)
watch.close()
assert (QueuePool._do_get, Starlette.__call__) == stock
assert attach(overdue=1) is not watch
"""


def test_attaching_twice_is_attaching_once_and_can_be_undone(tmp_path: Path) -> None:
    assert python(ATTACHED, tmp_path, watched=False).stderr == ""


FORKED = """
import asyncio, os, sys, threading
import httpx
import headgate.xray
import stock_app
from headgate.xray import attach

watch = attach(stock_app.app)

async def ask(times, path):
    transport = httpx.ASGITransport(stock_app.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await asyncio.gather(*(client.get(path) for _ in range(times)))

held = stock_app.sync_engine.connect()  # the parent's
asyncio.run(ask(1, "/ping"))
assert [one.name for one in threading.enumerate()].count("headgate-xray") == 1
child = os.fork()
if not child:
    assert not watch.live.holds
    stock_app.engine.sync_engine.dispose(close=False)
    answers = asyncio.run(ask(4, "/slow/1.2"))
    assert sorted(one.status_code for one in answers) == [200, 200, 500, 500], answers
    asyncio.run(ask(1, "/ping"))
    assert not watch.live.holds
    sys.stderr.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(watch.live.holds) == 1
held.close()
"""


def test_a_watch_that_was_opened_before_a_fork_works_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stock_app.py").write_text(APP)
    monkeypatch.setenv("STOCK_FILE", str(tmp_path / "stock.db"))
    done = python(FORKED, tmp_path, tmp_path, watched=False)
    assert f"2 {HELD}" in done.stderr
