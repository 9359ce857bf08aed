"""``headgate xray``: what its arguments ask for, and what it says of those that cannot work."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import headgate.cli.xray
import headgate.xray.probe
from headgate.cli.main import main
from headgate.errors import XrayError
from headgate.xray.asks import Ask
from headgate.xray.explain import explain
from headgate.xray.observation import Observation, PoolFacts
from headgate.xray.probe import XrayOptions, refusal_in, route_of, what_ended
from headgate.xray.text import format_explanation

GOLDEN = Path(__file__).parents[1] / "golden"


def sample_observation() -> Observation:
    return runpy.run_path(str(GOLDEN / "sample_xray.py"))["sample_observation"]()  # type: ignore[no-any-return]


@dataclass
class Call:
    app: str
    asks: tuple[Ask, ...]
    options: XrayOptions


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What would be run; each is answered with the sample, its pool of the size asked for."""
    seen: list[Call] = []

    @contextmanager
    def observed(app: str, asks: tuple[Ask, ...], options: XrayOptions, **_: Any) -> Iterator[Observation]:
        seen.append(Call(app, asks, options))
        pools = (PoolFacts("QueuePool", "QueuePool", options.pool_size or 15),)
        yield replace(sample_observation(), pools=pools)

    monkeypatch.setattr(headgate.xray.probe, "observed", observed)
    return seen


def fail(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(["xray", *argv])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headgate xray: error: ")
    assert err.count("\n") == 1, err
    return code, err


def test_every_option_arrives(calls: list[Call], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("A_OF_TEST=1")
    (tmp_path / "body").write_bytes(b"\x00\xff")
    argv = [
        "xray", "shop.main:make", "--get", "/a", "--get", "/b?c=1", "--post", "/d", "--body", f"@{tmp_path}/body",
        "--header", "X-Key: k", "--rate", "0.5", "--duration", "2", "--warm-up", "0", "--timeout", "3.5",
        "--concurrency", "7", "--factory", "--app-dir", str(tmp_path), "--env-file", str(tmp_path / ".env"),
        "--loop", "asyncio", "--against", "db", "--against", "db2", "--log", str(tmp_path / "log"), "--from-openapi",
    ]  # fmt: skip
    assert main(argv) == 0
    [call] = calls
    headers = (("X-Key", "k"),)
    assert call.app == "shop.main:make"
    assert call.asks == (
        Ask("GET", "/a", headers),
        Ask("GET", "/b?c=1", headers),
        Ask("POST", "/d", headers, b"\x00\xff"),
    )
    options = call.options
    assert (options.rate, options.duration_s, options.warm_up_s) == (Fraction(1, 2), 2, 0)
    assert (options.timeout_s, options.max_connections, options.loop) == (3.5, 7, "asyncio")
    assert options.is_factory
    assert options.from_schema
    assert (options.headers, options.against, options.directories) == (headers, ("db", "db2"), (str(tmp_path),))
    assert options.environment["A_OF_TEST"] == "1"
    assert options.environment["PATH"]
    assert options.log == (tmp_path / "log").resolve()


def test_the_defaults_are_those_of_the_options(calls: list[Call]) -> None:
    assert main(["xray", "app:app", "--get", "/"]) == 0
    [call] = calls
    assert call.options == replace(XrayOptions(), environment=call.options.environment)


def test_max_connections_is_the_other_name_of_concurrency(calls: list[Call]) -> None:
    assert main(["xray", "app:app", "--get", "/", "--max-connections", "3"]) == 0
    assert calls[0].options.max_connections == 3


def test_a_recorded_session_is_requested(calls: list[Call], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"request": {"method": "GET", "url": url, "headers": [{"name": "Cookie", "value": "hush"}]}}
        for url in ("http://a/x?hush=1", "http://a/y", "http://b/z")
    ]
    (tmp_path / "x.har").write_text(json.dumps({"log": {"entries": entries}}))
    assert main(["xray", "app:app", "--har", str(tmp_path / "x.har")]) == 0
    assert [ask.path for ask in calls[0].asks] == ["/x?hush=1", "/y"]
    out, err = capsys.readouterr()
    assert "left out: 1 requests to http://b: another origin; choose it by --origin" in err
    assert "hush" not in out + err
    assert main(["xray", "app:app", "--har", str(tmp_path / "x.har"), "--origin", "http://b"]) == 0
    assert [ask.path for ask in calls[1].asks] == ["/z"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "no app is named"),
        (("app", "--get", "/"), "is not MODULE:APP; write it as for uvicorn"),
        ((":app", "--get", "/"), "is not MODULE:APP"),
        (("app:", "--get", "/"), "is not MODULE:APP"),
        (("a:b:c", "--get", "/"), "is not MODULE:APP"),
        (("app:app",), "nothing to request; give --get PATH"),
        (("app:app", "--get", "x"), "--get 'x' does not begin with a slash; write it as --get /items/1"),
        (("app:app", "--post", ""), "--post '' does not begin with a slash"),
        (("app:app", "--get", "/", "--body", "x"), "--body is sent by --post alone"),
        (("app:app", "--post", "/", "--body", "@/nowhere"), "cannot read --body @/nowhere"),
        (("app:app", "--get", "/", "--header", "hush"), "a --header has no colon"),
        (("app:app", "--get", "/", "--header", "a b: c"), "header 'a b' cannot be sent"),
        (("app:app", "--get", "/", "--rate", "fast"), "--rate 'fast' is not a number"),
        (("app:app", "--get", "/", "--rate", "0"), "rate 0 is not above 0"),
        (("app:app", "--get", "/", "--rate", "1e9"), "--rate '1e9' is not a number"),
        (("app:app", "--get", "/", "--rate", "999999999", "--duration", "99"), "more than the 20,000,000"),
        (("app:app", "--get", "/", "--duration", "-1"), "duration -1 is not above 0"),
        (("app:app", "--get", "/", "--warm-up", "-1"), "a warm-up of -1 s cannot be"),
        (("app:app", "--get", "/", "--timeout", "0"), "timeout 0.0 is not above 0 s"),
        (("app:app", "--get", "/", "--concurrency", "0"), "max connections 0 is below 1"),
        (("app:app", "--get", "/", "--concurrency", "1.5"), "is not a whole number"),
        (("app:app", "--get", "/", "--sweep", "5"), "--sweep 5 does not compare sizes; give 2 to 20"),
        (("app:app", "--get", "/", "--sweep", "0,5"), "--sweep 0,5 does not compare sizes"),
        (("app:app", "--get", "/", "--sweep", "5,x"), "--sweep 'x' is not a whole number"),
        (("app:app", "--get", "/", "--sweep", "5,5"), "--sweep 5,5 does not compare sizes"),
        (("app:app", "--get", "/", "--app-dir", "/nowhere"), "--app-dir /nowhere is no directory"),
        (("app:app", "--get", "/", "--env-file", "/nowhere"), "cannot read --env-file /nowhere: No such file"),
        (("app:app", "--get", "/", "--log", "/nowhere/log"), "--log /nowhere/log cannot be a file"),
        (("app:app", "--get", "/", "--html", "/nowhere/x"), "cannot write --html /nowhere/x"),
        (("app:app", "--get", "/", "--record", "/"), "--record / is not a regular file"),
        (("app:app", "--har", "/nowhere"), "cannot read --har /nowhere"),
        (("app:app", "--get", "/", "--origin", "http://a"), "--origin chooses from a recorded session"),
        (("--explain", "/nowhere"), "cannot read --explain /nowhere"),
        (("--explain", "x", "--get", "/"), "--get has no meaning beside --explain"),
        (("--explain", "x", "--from-openapi"), "--from-openapi has no meaning beside --explain"),
        (("app:app", "--explain", "x"), "an app has no meaning beside --explain"),
    ],
)
def test_input_that_cannot_work_is_one_line_with_a_remedy(
    calls: list[Call], capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], words: str
) -> None:
    code, line = fail(capsys, *argv)
    assert code == 2
    assert words in line
    assert "hush" not in line
    assert calls == []


def test_too_many_requests_are_refused(calls: list[Call], capsys: pytest.CaptureFixture[str]) -> None:
    many = [word for number in range(201) for word in ("--get", f"/{number}")]
    code, line = fail(capsys, "app:app", *many)
    assert (code, calls) == (2, [])
    assert "201 different requests are more than the 200" in line


def test_what_is_not_installed_is_named(
    calls: list[Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def find_spec(name: str) -> object | None:
        return None if name in missing else object()

    monkeypatch.setattr(headgate.cli.xray, "find_spec", find_spec)
    missing = {"psutil"}
    expected = (1, "headgate xray: error: the X-ray needs the package psutil; pip install 'headgate[xray]'\n")
    assert fail(capsys, "app:app", "--get", "/") == expected
    missing = {"jinja2"}
    assert fail(capsys, "app:app", "--get", "/", "--html", str(tmp_path / "x"))[0] == 1
    missing = {"uvloop"}
    assert "uvloop" in fail(capsys, "app:app", "--get", "/", "--loop", "uvloop")[1]
    assert main(["xray", "app:app", "--get", "/"]) == 0
    assert len(calls) == 1
    assert list(tmp_path.iterdir()) == []


# What comes out.


def test_text_json_page_and_record(calls: list[Call], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, record = tmp_path / "x.html", tmp_path / "x.json"
    assert main(["xray", "app:app", "--get", "/", "--html", str(page), "--record", str(record)]) == 0
    text, err = capsys.readouterr()
    assert "GET /slow   500 sent, 225 answered" in text
    assert err.splitlines()[-2:] == [f"written: {page}", f"written: {record}"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["xray", "--explain", str(record)]) == 0
    assert capsys.readouterr().out == text
    assert main(["xray", "--explain", str(record), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "headgate-xray-explanation"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.html", "x.json"]


def test_a_file_that_is_no_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("{}")
    code, line = fail(capsys, "--explain", str(tmp_path / "x"))
    assert code == 2
    assert "make it with headgate xray --record" in line


def test_a_sweep_runs_each_size_and_explains_the_smallest(
    calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["xray", "app:app", "--get", "/", "--sweep", "20,5,10"]) == 0
    assert [call.options.pool_size for call in calls] == [5, 10, 20]
    out = capsys.readouterr().out
    assert out.startswith("GET /slow   offered 100/s\n  connections  predicted  measured")
    small = replace(sample_observation(), pools=(PoolFacts("QueuePool", "QueuePool", 5),))
    assert out.endswith(f"With 5 connections:\n\n{format_explanation(explain(small))}\n")


def test_a_sweep_without_a_pool_says_so(
    calls: list[Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def observed(*_: Any, **__: Any) -> Iterator[Observation]:
        yield replace(sample_observation(), pools=(PoolFacts("NullPool", "NullPool", None),))

    monkeypatch.setattr(headgate.xray.probe, "observed", observed)
    assert main(["xray", "app:app", "--get", "/", "--sweep", "5,10"]) == 1
    assert "no pool of the app has a size that --sweep could change (NullPool)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (XrayError("it\nbroke"), 1, "headgate xray: error: it broke\n"),
        (KeyboardInterrupt(), 130, "headgate xray: interrupted\n"),
    ],
)
def test_what_ends_a_run_leaves_one_line_and_no_file(
    error: BaseException,
    code: int,
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def observed(*_: Any, **__: Any) -> Iterator[Observation]:
        raise error
        yield

    monkeypatch.setattr(headgate.xray.probe, "observed", observed)
    assert main(["xray", "app:app", "--get", "/", "--html", str(tmp_path / "x")]) == code
    assert capsys.readouterr() == ("", line)
    assert list(tmp_path.iterdir()) == []


# An app's end.


def test_why_a_database_was_barred_is_found_among_last_words() -> None:
    words = "Traceback\nheadgate.errors.XrayError: a database is on x\n\nRuntimeError: no database"
    assert refusal_in(words) == "a database is on x"
    assert refusal_in("RuntimeError: x") == ""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("the service x died at startup: y", "does not start"),
        (
            "the service x did not answer within 10 s",
            "does not answer, something in it holds Python's interpreter lock; its last words",
        ),
        ("the service x died: y", "has died"),
        ("cannot listen on 127.0.0.1:0", ""),
    ],
)
def test_how_an_app_ended(message: str, words: str) -> None:
    assert what_ended(message) == words


def test_the_route_of_a_path_is_found_however_it_is_encoded() -> None:
    paths = {"GET /a b/ü": "GET /a b/{x}"}
    assert route_of("GET /a%20b/%C3%BC", paths) == "GET /a b/{x}"
    assert route_of("GET /else", paths) == "GET /else"
