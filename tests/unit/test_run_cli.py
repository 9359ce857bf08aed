"""What ``headgate run`` makes of its command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import headgate.cli.run
import headgate.xray.watch
from headgate.cli.main import main
from headgate.cli.run import with_preload
from headgate.xray.options import OVERDUE

PRELOAD = Path(headgate.xray.watch.__file__).with_name("preload")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    """What would have been started."""
    found: list[tuple[str, list[str], dict[str, str]]] = []

    def become(program: str, command: Sequence[str], environment: Mapping[str, str]) -> int:
        found.append((program, list(command), dict(environment)))
        return 0

    monkeypatch.setattr(headgate.cli.run, "_become", become)
    monkeypatch.setattr(headgate.cli.run, "find_program", lambda name: f"/bin/{name}")
    monkeypatch.delenv(OVERDUE, raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["uvicorn", "app:app", "--workers", "2", "--reload"],
        ["gunicorn", "app:app", "-k", "uvicorn_worker.UvicornWorker"],
        ["python", "-m", "app", "--version", "--help"],
        ["sh", "-c", "exec serve -- --overdue 3"],
        ["serve", "--", "--overdue", "3"],
    ],
)
@pytest.mark.parametrize("separator", [["--"], []])
def test_a_command_is_started_as_it_is(
    started: list[tuple[str, list[str], dict[str, str]]], separator: list[str], command: list[str]
) -> None:
    assert main(["run", *separator, *command]) == 0
    ((program, argv, environment),) = started
    assert (program, argv) == (f"/bin/{command[0]}", command)
    assert environment == {**os.environ, "PYTHONPATH": str(PRELOAD)}


def test_the_option_goes_to_every_process(started: list[tuple[str, list[str], dict[str, str]]]) -> None:
    assert main(["run", "--overdue", "2.5", "--", "serve"]) == 0
    assert started[0][2][OVERDUE] == "2.5"


@pytest.mark.parametrize("present", ["", "/srv/lib", os.pathsep.join(["/srv/lib", "", "/srv/more"])])
def test_what_is_on_pythonpath_stays_there(present: str) -> None:
    found = with_preload({"PYTHONPATH": present, "HOME": "/root"})
    assert found == {"HOME": "/root", "PYTHONPATH": os.pathsep.join([str(PRELOAD), *([present] if present else [])])}
    assert with_preload(found) == found, "once is enough"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run"], "no command; give what you start the service with"),
        (["run", "--"], "no command; give what you start the service with"),
        (["run", "--overdue", "soon", "--", "serve"], "--overdue 'soon' is not a number"),
        (["run", "--overdue", "-1", "--", "serve"], "overdue=-1.0 is no time"),
    ],
)
def test_wrong_usage_is_one_line(
    started: list[object], capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert (out, started) == ("", [])
    assert re.fullmatch(r"headgate run: error: .*\n", err)
    assert words in err


def test_a_command_that_is_not_there_ends_as_in_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--", "no-such-command-at-all"]) == 127
    assert capsys.readouterr().err == (
        "headgate run: error: no command 'no-such-command-at-all'; is it installed, and on PATH?\n"
    )


def test_a_command_that_cannot_be_started_ends_as_in_a_shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(headgate.cli.run, "_become", refuse)
    assert main(["run", "--", "sh"]) == 126
    assert capsys.readouterr().err.endswith("sh: Exec format error\n")


def test_what_starts_with_every_process_awaits_what_the_watch_listens_to() -> None:
    text = (PRELOAD / "sitecustomize.py").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^LIBRARIES = \((.*)\)$", text, re.MULTILINE)
    assert tuple(re.findall(r'"(.*?)"', listed)) == headgate.xray.watch.LIBRARIES
