from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import headgate.hosting.service
from headgate.errors import HostingError
from headgate.hosting.service import Service
from headgate.lab.environment import clean_environment, service_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lab hands sockets on to its services")

SOURCE = Path(headgate.hosting.service.__file__).parents[2]

APP = """
import asyncio, json, os, time
from contextlib import asynccontextmanager

class App:
    def __init__(self, configuration):
        self.configuration = configuration
        print("made with", configuration["greeting"])

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                if message["type"] == "lifespan.shutdown":
                    print("shut down in order", flush=True)
                await send({"type": message["type"] + ".complete"})
        if scope["path"] == "/slow":
            await asyncio.sleep(60)
        if scope["path"] == "/burn":
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
        environment = [name for name in os.environ if name.startswith(("PG", "HEADGATE"))]
        loop = type(asyncio.get_running_loop()).__module__
        facts = {"greeting": self.configuration["greeting"], "environment": environment, "loop": loop}
        body = json.dumps(facts)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})

class Stubborn(App):
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            time.sleep(60)
        await super().__call__(scope, receive, send)

def obey(order):
    return {"doubled": order["number"] * 2, "long": "x" * order.get("length", 0)}

async def unready(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no table todo"})

def broken(configuration):
    raise RuntimeError("the factory is broken")
"""


@pytest.fixture
def apps(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "lab_service_apps.py").write_text(APP)
    return {"PYTHONPATH": os.pathsep.join([str(SOURCE), str(tmp_path)])}


def make(apps: dict[str, str], tmp_path: Path, name: str = "App", **options: Any) -> Service:
    log = tmp_path / "logs" / "service.log"
    environment = service_environment() | apps
    return Service(f"lab_service_apps:{name}", {"greeting": "hello"}, log=log, environment=environment, **options)


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def has_died(service: Service) -> bool:
    try:
        service.check_running()
    except HostingError:
        return True
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_serves_what_the_factory_made_and_stops_in_order(
    apps: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "192.0.2.1")
    monkeypatch.setenv("HEADGATE", "off")
    with make(apps, tmp_path) as service:
        pid = service.pid
        answer = httpx.get(service.url, trust_env=False).json()
    assert answer["greeting"] == "hello"
    assert answer["loop"].startswith("uvloop")
    assert not {"PGHOST", "HEADGATE"} & set(answer["environment"])
    assert is_gone(pid)
    assert (tmp_path / "logs" / "service.log").read_text().split("\n") == [
        "made with hello",
        "shut down in order",
        "",
    ]


def test_cpu_time_and_memory_are_its_own(apps: dict[str, str], tmp_path: Path) -> None:
    with make(apps, tmp_path) as service:
        before = service.cpu_seconds()
        httpx.get(service.url + "/burn", trust_env=False)
        assert service.cpu_seconds() - before >= 0.25
        assert 5_000_000 < service.memory_bytes() < 1_000_000_000


def test_one_log_line_tells_why_it_died_at_startup(apps: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        HostingError, match="lab_service_apps:broken died at startup: RuntimeError: the factory is"
    ) as e:
        make(apps, tmp_path, "broken").start()
    assert "\n" not in str(e.value)


def test_a_lifespan_that_fails_is_told(apps: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "lab_service_apps.py").write_text(APP + "\ndef make_unready(configuration): return unready\n")
    with pytest.raises(HostingError, match=r"died at startup: .*no table todo"):
        make(apps, tmp_path, "make_unready").start()


def test_a_port_in_use_is_one_line(apps: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        port = rival.getsockname()[1]
        with pytest.raises(HostingError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another --port"):
            make(apps, tmp_path, port=port).start()


def test_a_fixed_port_can_be_used_again_at_once(apps: dict[str, str], tmp_path: Path) -> None:
    with make(apps, tmp_path) as first:
        httpx.get(first.url, trust_env=False)
    with make(apps, tmp_path, port=first.port) as second:
        assert httpx.get(second.url, trust_env=False).status_code == 200


def test_a_service_that_died_is_noticed_and_refuses(apps: dict[str, str], tmp_path: Path) -> None:
    with make(apps, tmp_path) as service:
        service.check_running()
        # Not is_gone: a process shows as a zombie while its threads still end, before it can be waited for.
        os.kill(service.pid, signal.SIGKILL)
        assert eventually(lambda: has_died(service))
        with pytest.raises(HostingError, match=re.escape("lab_service_apps:App died: made with hello")):
            service.check_running()
        with pytest.raises(httpx.ConnectError):
            httpx.get(service.url, trust_env=False)


def test_requests_under_way_do_not_hold_the_end_up(apps: dict[str, str], tmp_path: Path) -> None:
    answers = []

    def ask(url: str) -> None:
        try:
            answers.append(httpx.get(url, timeout=60, trust_env=False).status_code)
        except httpx.HTTPError as error:
            answers.append(type(error).__name__)

    with make(apps, tmp_path) as service:
        asker = threading.Thread(target=ask, args=(service.url + "/slow",))
        asker.start()
        eventually(lambda: len(psutil.Process(service.pid).net_connections()) > 1)
        began = time.monotonic()
    asker.join()
    assert time.monotonic() - began < 6
    assert len(answers) == 1


def test_a_service_answers_what_it_is_asked(apps: dict[str, str], tmp_path: Path) -> None:
    with make(apps, tmp_path, obey="lab_service_apps:obey") as service:
        assert service.ask({"do": "double", "number": 21}) == {"doubled": 42, "long": ""}
        answer = service.ask({"do": "double", "number": 1, "length": 300_000})
        assert len(answer["long"]) == 300_000, "longer than a pipe holds"
        os.kill(service.pid, signal.SIGKILL)
        with pytest.raises(HostingError, match=r"ended unexpectedly|died"):
            service.ask({"do": "double", "number": 1})


def test_a_service_that_will_not_stop_is_ended(
    apps: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headgate.hosting.service, "_STOP_SECONDS", 1.0)
    with make(apps, tmp_path, "Stubborn") as service:
        pid = service.pid
    assert is_gone(pid)


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_ends_with_its_owner_whatever_ends_it(apps: dict[str, str], tmp_path: Path, number: str) -> None:
    program = (
        "import json, os, sys, time\nfrom pathlib import Path\nfrom headgate.hosting.service import Service\n"
        "apps, log = json.loads(sys.argv[1]), Path(sys.argv[2])\n"
        "with Service('lab_service_apps:App', {'greeting': ''}, log=log, environment={**os.environ, **apps}) as s:\n"
        "    print(s.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(apps), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment() | apps,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not is_gone(pid)
        owner.send_signal(getattr(signal, number))
        owner.wait(15)
        assert eventually(lambda: is_gone(pid))


def test_the_configuration_is_nowhere_to_be_seen(apps: dict[str, str], tmp_path: Path) -> None:
    with make(apps, tmp_path) as service:
        process = psutil.Process(service.pid)
        assert "hello" not in " ".join(process.cmdline())
        assert "hello" not in process.environ().values()
