from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import headgate.cli.plan
from headgate.cli.main import main
from headgate.errors import LabError
from headgate.sizing import Server

PAGE = Path(__file__).parents[2] / "docs" / "pgbouncer.md"

PLAN = ("plan", "--rate", "400", "--hold", "12", "--leases", "2", "--cores", "4")


def output(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command line that succeeds prints; within 80 columns, as a terminal at night has them."""
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [line for line in out.splitlines() if len(line) > 80] == []
    return out


def fail(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headgate plan: error: ")
    assert err.count("\n") == 1, err
    return code, err


def test_the_documented_plan_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """With PgBouncer, at full length."""
    (block,) = re.findall(
        r"^```console\n\$ headgate (.*?)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert output(capsys, *block[0].split()) == block[1]


def test_a_plan_without_anything_to_mind(capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, *PLAN)
    assert "!" not in out
    assert "pgbouncer" not in out
    assert "db = Database(url, connections=4)" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--max-connections", "17"), "80% busy, and waits grow fast above 75%"),
        (("--max-connections", "17"), "raise max_connections to 18"),
        (("--max-connections", "14"), "9.6 connections would be busy and the server has room for 9"),
        (("--max-connections", "14"), "9.6 wanted: more than there are"),
        (("--max-connections", "30"), "needs 32 connections for a while"),
        (("--sync", "500"), "A worker needs 67 threads and anyio gives it 40"),
        (("--sync", "500"), "total_tokens = 67"),
        (("--sync", "50"), "5 busy a worker, 50 ms a request"),
        (("--workers", "3"), "workers                  3  as given"),
        (("--workers", "auto", "--machines", "2"), "8  one a core, on each of 2 machines"),
        (("--others", "60"), "100 - 3 reserved - 60 for others"),
        (("--reserved", "5"), "100 - 5 reserved - 2 for others"),
        (("--rate", "0.1", "--hold", "1"), "under 0.01 connections busy"),
        (("--leases", "1"), "× 1 lease × 12 ms"),
        (("--leases", "2.50"), "× 2.5 leases × 12 ms"),
    ],
)
def test_what_a_plan_says(capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str) -> None:
    assert words in output(capsys, *PLAN, *more).replace("\n  ", " ")


def test_the_numbers_of_huge_loads_have_no_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    out = output(capsys, "plan", "--rate", "999999999", "--hold", "500", "--workers", "1000")
    assert "e+" not in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--rate", "x", "--hold", "1"), "--rate 'x' is not a number above 0; write it as --rate 100"),
        (("--rate", "-1", "--hold", "1"), "--rate '-1'"),
        (("--rate", "nan", "--hold", "1"), "--rate 'nan'"),
        (("--rate", "1e9", "--hold", "1"), "--rate '1e9'"),
        (("--rate", "1", "--hold", "0"), "hold 0 cannot work"),
        (("--rate", "1", "--hold", "10", "--sync", "5"), "its leases alone keep a request for 0.01 s"),
        (("--rate", "1", "--hold", "1", "--workers", "many"), "--workers 'many' is not a whole number"),
        (("--rate", "1", "--hold", "1", "--workers", "0"), "workers 0 cannot work"),
        (("--rate", "1", "--hold", "1", "--max-connections", "2.5"), "--max-connections '2.5'"),
        (("--rate", "1", "--hold", "1", "--max-connections", "4"), "leave no connection; raise max_connections"),
        (("--rate", "1", "--hold", "1", "--database", "postgres//a:secret@b"), "--database"),
    ],
)
def test_wrong_usage_is_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], words: str
) -> None:
    code, err = fail(capsys, "plan", *argv)
    assert code == 2
    assert words in err
    assert "secret" not in err


def test_rate_and_hold_cannot_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "--rate", "1"])
    assert exit_.value.code == 2
    assert "--hold" in capsys.readouterr().err


def test_what_is_given_goes_before_what_the_server_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headgate.cli.plan, "ask_server", lambda url: Server(max_connections=50, reserved=4, limit=30))
    out = output(capsys, *PLAN, "--database", "postgresql://app@db/app", "--others", "7")
    assert "30  CONNECTION LIMIT of the role or the database" in out
    out = output(capsys, *PLAN, "--database", "postgresql://app@db/app", "--max-connections", "21")
    assert "15  max_connections 21 - 4 reserved - 2 for others" in out


def test_a_server_that_cannot_be_asked_is_a_failure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str) -> Server:
        raise LabError("cannot ask postgresql://app:***@db/app: no")

    monkeypatch.setattr(headgate.cli.plan, "ask_server", refuse)
    code, err = fail(capsys, *PLAN, "--database", "postgresql://app:secret@db/app")
    assert code == 1
    assert "cannot ask" in err


def test_a_missing_driver_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    code, err = fail(capsys, *PLAN, "--database", "postgresql://app:secret@db/app")
    assert code == 1
    assert "--database needs the driver psycopg; pip install 'headgate[lab]'" in err
    assert "secret" not in err


def test_an_ambient_database_is_never_read(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headgate.cli.plan, "ask_server", lambda url: pytest.fail("it asked"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@db/app")
    monkeypatch.setenv("PGHOST", "db")
    assert "max_connections 100" in output(capsys, *PLAN)
