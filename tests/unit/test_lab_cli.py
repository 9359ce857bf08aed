from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import headgate.cli.lab
from headgate.cli.main import main
from headgate.errors import LabError
from headgate.lab.delivery import check_output
from headgate.version import __version__


def fail(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Run a command line that fails at once; return its code and the one line it leaves."""
    code = main(argv)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headgate: ")
    assert err.count("\n") == 1, err
    return code, err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"headgate {__version__}\n"


def test_version_does_not_load_what_only_the_lab_needs() -> None:
    program = (
        "import sys\nfrom headgate.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('rich', 'uvicorn', 'psutil', 'alembic', 'jinja2', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ping", "sleep", "overload"]
    assert all(line.endswith("?") for line in lines)


def test_an_unknown_experiment_gets_close_names_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fail(capsys, "lab", "slep")
    assert code == 2
    assert line == "headgate: there is no experiment 'slep'; did you mean sleep? choose from ping, sleep, overload\n"
    assert fail(capsys, "lab", "xyz") == (
        2,
        "headgate: there is no experiment 'xyz'; choose from ping, sleep, overload\n",
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["lab", "serve"], "takes one experiment, not 0"),
        (["lab", "serve", "ping", "sleep"], "takes one experiment, not 2"),
        (["lab", "serve", "slep"], "did you mean sleep"),
        (["lab", "serve", "sleep", "--arm", "sync_inside"], "there is no arm of sleep 'sync_inside'; did you mean"),
        (["lab", "serve", "sleep", "--port", "70000"], "--port 70000 is no port"),
        (["lab", "serve", "sleep", "--port", "http"], "--port http is no port"),
        (["lab", "serve", "sleep", "--strict"], "--strict has no meaning here"),
        (["lab", "serve", "sleep", "--output", "x"], "--output has no meaning here"),
        (["lab", "sleep", "--port", "80"], "--port has no meaning here"),
        (["lab", "sleep", "--arm", "ping"], "--arm has no meaning here"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    code, line = fail(capsys, *argv)
    assert code == 2
    assert words in line


@pytest.mark.parametrize("argv", [[], ["lab", "--quick", "--full"], ["lab", "--nonsense"], ["nonsense"]])
def test_argparse_answers_what_it_can(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2


def test_a_wrong_scheme_is_named_without_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fail(capsys, "lab", "sleep", "--database", "mysql://app:secret@db/app")
    assert code == 2
    assert "mysql://app:***@db/app has an unknown scheme; use postgresql://" in line
    assert "secret" not in line


def test_a_missing_extra_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "uvicorn" else importlib.util.find_spec(name)

    monkeypatch.setattr(headgate.cli.lab, "find_spec", find)
    code, line = fail(capsys, "lab", "--list")
    assert code == 1
    assert line == "headgate: the lab needs the package uvicorn; pip install 'headgate[lab]'\n"


# The output directory, before any load.


def test_a_file_in_the_way_is_found_before_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    code, line = fail(capsys, "lab", "sleep", "--output", str(tmp_path / "taken"))
    assert code == 1
    assert f"cannot write results into {tmp_path / 'taken'}: File exists; choose another --output" in line
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("name", ["results.json", "report.html"])
def test_a_directory_in_the_way_is_found_before_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(LabError, match=f"a directory named {name} is in the way; choose another --output"):
        check_output(tmp_path)


@pytest.fixture
def small_files() -> Iterator[None]:
    """As on a disk with one MiB left: the kernel refuses what is beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_found_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot write results into .*: File too large; choose another --output"):
        check_output(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_usable_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
