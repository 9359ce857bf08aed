"""An event loop that stands still: because of which line, at whose cost, and when it is nobody's fault."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from .xray_truth import Patient, Told, get, patient

PINGS = 50


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def app(
    request: pytest.FixtureRequest, postgres_url: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Patient]:
    log = tmp_path_factory.mktemp("blocking") / "log"
    with patient("blocking", postgres_url, log, loop=request.param) as served:
        served.warm_up("/ping", "/query", "/load")
        yield served


@pytest.mark.parametrize(
    ("path", "function", "line", "called"),
    [
        ("/sleep", "sleep", "time.sleep(0.2)", "«time.sleep(0.2)»"),
        ("/compute", "compute", "return sum(number * number for number in range(3_000_000))", "«return sum("),
        ("/json", "parse", "return len(json.loads(TWENTY_MEGABYTES))", "json.loads"),
        ("/hash", "sign_in", 'return hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 500_000).hex()', "«return hash"),
        ("/query", "query", 'session.execute(text("SELECT pg_sleep(0.2)"))', "sqlalchemy.Session.execute"),
        (
            "/load",
            "load",
            "numbers = await session.scalars(MANY_NUMBERS)",
            "because of async sqlalchemy.Session.execute",
        ),
    ],
)
def test_a_handler_that_blocks_the_loop(app: Patient, path: str, function: str, line: str, called: str) -> None:
    told = app.under(get(path, 2), get("/ping", PINGS), record=f"blocked{path.replace('/', '_')}")
    stalls = [sentence for sentence in told.route(path).sentences if sentence.kind == "stall" and sentence.site]
    places = {(stall.site.function.partition(".")[0], stall.site.text): stall for stall in stalls if stall.site}
    assert {name for name, _ in places} == {function}, str(told)
    assert (function, line) in places, str(told)
    stall = places[function, line]
    assert called in stall.text
    assert 0.3 * stall.figures["total_s"] * PINGS < stall.figures["victims"] <= PINGS, str(told)
    assert stall.figures["longest_s"] > 0.05
    assert "stall" not in told.kinds("/ping")
    assert "unattributed" not in told.kinds(path) or told.tolerance > 0.1, str(told)


def test_a_loop_that_always_stands_still_is_the_limit(app: Patient) -> None:
    told = app.under(get("/sleep", 10), seconds=1)
    binding = told.said("/sleep", "loop")
    assert binding.figures["rate"] == pytest.approx(5, rel=0.1), str(told)
    assert binding.figures["rate"] == pytest.approx(told.offer("/sleep").throughput, rel=0.1), str(told)


def test_a_collection_is_not_blamed_on_a_line(app: Patient) -> None:
    app.warm_up("/grow")
    told = app.under(get("/collect", 2), get("/ping", PINGS))
    app.warm_up("/shrink")
    assert "stall" not in told.kinds("/collect"), str(told)
    assert any("collected garbage" in sentence.text for sentence in told.said_of_service("stall")), str(told)
    assert not _blamed_lines(told)


def test_a_late_import_is_named_as_one(app: Patient) -> None:
    told = app.under(get("/import", 1), get("/ping", PINGS))
    stall = told.said("/import", "stall")
    assert "the import of slow_module" in stall.text
    assert "import it when the service starts" in stall.text
    assert stall.site is not None
    assert (stall.site.function, stall.site.text) == ("import_late", "import slow_module")


def test_a_suspended_process_is_not_blamed_on_a_line(app: Patient) -> None:
    stop = threading.Timer(0.3, os.kill, (app.pid, signal.SIGSTOP))
    go_on = threading.Timer(0.8, os.kill, (app.pid, signal.SIGCONT))
    stop.start()
    go_on.start()
    told = app.under(get("/ping", PINGS))
    stop.join()
    go_on.join()
    stalls = told.said_of_service("stall")
    assert any("was suspended" in stall.text and stall.figures["longest_s"] > 0.4 for stall in stalls), str(told)
    assert not _blamed_lines(told)
    assert told.said("/ping", "not saturated")


def _blamed_lines(told: Told) -> list[str]:
    """Lines of the app that a stall is blamed on."""
    return [str(stall.site) for stall in told.observation.stalls if stall.verdict == "code" and stall.site.file]
