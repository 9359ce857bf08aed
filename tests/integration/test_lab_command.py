"""``headgate lab`` for real: a whole run, runs that are ended, input that cannot work."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import headgate.lab.run
import headgate.lab.trial
from headgate.cli.main import main
from headgate.lab.connection import connect
from headgate.lab.environment import clean_environment
from headgate.lab.experiments import sleep
from headgate.lab.output import load_run
from headgate.lab.postgres import EmbeddedPostgres
from headgate.lab.report.reading import is_void

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded PostgreSQL needs Linux or macOS")

SOURCE = Path(headgate.__file__).parents[1]
COMMAND = [sys.executable, "-m", "headgate"]


def environment() -> dict[str, str]:
    return clean_environment() | {"PYTHONPATH": str(SOURCE)}


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


def fail(*argv: str, env: dict[str, str]) -> tuple[int, str]:
    """Run a command that fails; return its code and the one line it leaves."""
    done = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, env=env, timeout=30, check=False)
    assert done.stdout == ""
    assert done.stderr.startswith("headgate: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


# A whole run.


def test_a_run_of_sleep_leaves_results_report_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = sleep.Scale(sleep_s=0.3, duration_s=0.5, timeout_s=1.2)
    monkeypatch.setattr(sleep, "SCALES", {"quick": tiny})
    monkeypatch.setattr(sleep, "REQUESTS", 120)
    monkeypatch.setattr(headgate.lab.trial, "MAX_RUNS", 1)  # a busy machine must not make this take minutes
    assert main(["lab", "sleep", "--output", str(tmp_path)]) == 0

    run = load_run(tmp_path)
    [experiment] = run.experiments
    assert run.complete
    assert experiment.scaled
    assert run.machine.postgresql.startswith("18")
    arms = {arm.name: arm for arm in experiment.arms}
    assert {arm.paths[0].requests for arm in experiment.arms} == {120}
    stock, leased = arms["async-inside"], arms["headgate-async-inside"]
    assert leased.paths[0].success_ratio == 1.0
    assert stock.paths[0].success_ratio < 0.8
    for name in ("async-inside", "sync-inside"):
        states = arms[name].connections
        assert states is not None
        assert states.max_idle_in_transaction == 15
    for name in ("headgate-async-inside", "headgate-sync-inside"):
        states = arms[name].connections
        assert states is not None
        assert states.samples
        assert states.max_idle_in_transaction == 0

    out, err = capsys.readouterr()
    assert experiment.question in out
    assert str(tmp_path / "report.html") in out
    assert err.count("started, 120 to do") == err.count("done, 120 of 120") == 6
    report = (tmp_path / "report.html").read_text()
    assert experiment.findings[0].statement in report
    void = any(map(is_void, experiment.arms))
    assert experiment.verdict.startswith("void: ") == void


def test_a_run_of_ping_needs_no_postgres(tmp_path: Path) -> None:
    """And its tables may go into a pipe whose reader has seen enough, as with «| head -1»."""
    program = (
        "import sys, headgate.lab.run as lab, headgate.lab.trial as trial\n"
        "from headgate.lab.experiments import ping\n"
        "from headgate.cli.main import main\n"
        "def refuse(*a, **k): raise AssertionError('PostgreSQL was started')\n"
        "lab.EmbeddedPostgres = refuse\n"
        "trial.MAX_RUNS = 1\n"
        "ping.SCALES = {'quick': ping.Scale(rows=2000, sleep_s=0.2)}\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    env = environment() | {"HEADGATE_CACHE": str(tmp_path / "cache")}
    argv = [sys.executable, "-c", program, "lab", "ping", "--output", str(tmp_path / "out")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert "Error" not in errors
    [experiment] = load_run(tmp_path / "out").experiments
    assert [arm.paths[0].success_ratio for arm in experiment.arms] == [1.0] * 11
    assert load_run(tmp_path / "out").machine.postgresql == ""


# Runs that are ended.


@contextmanager
def started_run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose first arm is under load."""
    argv = [*COMMAND, "lab", "sleep", "--output", str(tmp_path / "out")]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "started, 500 to do" in process.stderr.readline()
            time.sleep(0.5)  # some of the load is under way then
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "headgate: interrupted"),
        (signal.SIGTERM, 143, "headgate: terminated"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_an_ended_run_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int, line: str) -> None:
    with started_run(tmp_path) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        ports = listening_ports(family)
        assert len(ports) == 2, "PostgreSQL and the service"
        [data] = data_directories(family)
        assert data.is_dir()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert err.splitlines()[-1:] == ([line] if line else [])
    assert "Traceback" not in err
    assert eventually(lambda: not any(map(lives, family)))
    assert not any(map(accepts, ports))
    assert eventually(lambda: not data.parent.exists())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["logs"]


def listening_ports(family: list[psutil.Process]) -> set[int]:
    ports = set()
    for process in family:
        with suppress(psutil.NoSuchProcess):  # PostgreSQL's workers come and go
            listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            ports.update(connection.laddr.port for connection in listening)
    return ports


def data_directories(family: list[psutil.Process]) -> list[Path]:
    arguments: list[str] = []
    for process in family:
        with suppress(psutil.NoSuchProcess):
            arguments += process.cmdline()
    return [Path(argument[2:]) for argument in arguments if re.fullmatch("-D.*/data", argument)]


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_that_dies_under_a_run_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Mortal(EmbeddedPostgres):
        def create_database(self) -> str:
            name = super().create_database()
            self.end()
            return name

    monkeypatch.setattr(headgate.lab.run, "EmbeddedPostgres", Mortal)
    assert main(["lab", "sleep", "--output", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r"headgate: PostgreSQL does not answer any more: .*; run the lab again\n", err)
    assert not list(tmp_path.iterdir())


# serve.


def test_serve_prints_routes_that_answer_and_ends_by_ctrl_c() -> None:
    argv = [*COMMAND, "lab", "serve", "sleep", "--arm", "headgate-async-inside"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True) as p:
        assert p.stdout is not None
        lines = [p.stdout.readline().rstrip() for _ in range(6)]
        family = psutil.Process(p.pid).children(recursive=True)
        try:
            urls = lines[1:5]
            for url in urls:
                assert re.fullmatch(r"http://127\.0\.0\.1:\d+/a?sync_session_sleep_(in|out)side_session", url)
                with urllib.request.urlopen(url, timeout=20) as answer:
                    assert json.load(answer) == {"name": "buffy"}
        finally:
            p.send_signal(signal.SIGINT)
            _, err = p.communicate(timeout=30)
    assert "headgate.lease(engine)" in lines[0]
    assert (p.returncode, err) == (130, "headgate: interrupted\n")
    assert eventually(lambda: not any(map(lives, family)))


def test_serve_on_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        port = str(rival.getsockname()[1])
        code, line = fail("lab", "serve", "ping", "--port", port, env=environment())
    assert code == 1
    assert line == f"headgate: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port\n"


# Input that cannot work.


def test_a_database_out_of_reach(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"postgresql://app:secret@127.0.0.1:{port}/app"
    output = str(tmp_path / "out")
    code, line = fail("lab", "sleep", "--database", url, "--output", output, env=environment())
    assert code == 1
    assert f"cannot connect to postgresql://app:***@127.0.0.1:{port}/app" in line
    assert "check address, user and password" in line
    assert "secret" not in line


def test_a_given_database_is_served_from_and_left_as_it_was(
    postgres: EmbeddedPostgres,
) -> None:
    before = databases(postgres)
    given = postgres.url().render_as_string(hide_password=False)
    argv = [*COMMAND, "lab", "serve", "sleep", "--database", given]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True) as p:
        assert p.stdout is not None
        lines = [p.stdout.readline().rstrip() for _ in range(6)]
        assert databases(postgres) - before
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=30)
    assert p.returncode == 143
    assert "http://" in lines[1]
    assert str(postgres.url().password) not in "".join([*lines, out, err])
    assert databases(postgres) == before


def databases(postgres: EmbeddedPostgres) -> set[str]:
    with connect(postgres.url()) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
