"""``headgate load`` as people run it: a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from headgate.load.sample import decode_samples

# As a shell starts it, even where the test runner itself runs with interrupts ignored.
COMMAND = """\
import argparse, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from headgate.cli import load
parser = argparse.ArgumentParser(prog="headgate")
load.add_parser(parser.add_subparsers(required=True))
args = parser.parse_args(["load", *sys.argv[1:]])
sys.exit(args.run(args))
"""
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = (503, b"") if self.path.startswith("/busy") else (200, b"pong")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def headgate_load(*args: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + COMMAND, *args], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_report(url: str) -> None:
    done = headgate_load(f"{url}/ping", f"{url}/busy?token=geheim", "--rate", "100", "--duration", "0.4")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:13].strip(): line.partition("]")[2].split() for line in reversed(done.stdout.splitlines())}
    assert rows["Requests"][:2] == ["40,", "102.56,"]
    assert rows["Success"] == ["50.00%"]
    assert rows["Status Codes"] == ["200:20", "503:20"]
    assert rows["Bytes In"] == ["80,", "2.00"]
    assert f"\n{url}/busy\n" in done.stdout
    assert "geheim" not in done.stdout
    if done.stdout.startswith("Do not believe these figures:\n  lateness:"):  # a busy machine; then only that is told
        assert "lost:" not in done.stdout
    else:
        assert "lost: 40 planned, 40 sent, 40 answered, 0 failed" in done.stdout


def test_json_and_samples(url: str, tmp_path: Path) -> None:
    output = tmp_path / "samples.jsonl"
    output.write_text("old")
    done = headgate_load(f"{url}/ping", "--requests", "7", "--json", "--output", str(output))
    figures = json.loads(done.stdout)
    assert (figures["format"], figures["total"]["requests"], figures["total"]["statuses"]) == (
        "headgate-load",
        7,
        {"200": 7},
    )
    assert [check["name"] for check in figures["checks"]] == ["lateness", "cpu", "lost", "limits"]
    samples = list(decode_samples(output.read_text().splitlines()))
    assert [(s.status, s.intended_ns, s.bytes_in) for s in samples] == [(200, 0, 4)] * 7
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]


def test_the_same_seed_gives_the_same_arrivals(url: str, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    for file, seed in zip(files, ("5", "5", "6"), strict=True):
        options = ("--rate", "200", "--duration", "0.2", "--arrivals", "poisson", "--seed", seed)
        assert headgate_load(url, *options, "--output", str(file)).returncode == 0
    one, same, other = ([s.intended_ns for s in decode_samples(f.read_text().splitlines())] for f in files)
    assert one == same != other


def test_wrong_usage_is_one_line() -> None:
    done = headgate_load("http://u:geheim@h/", "--rate", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "headgate load: error: rate 0 is not above 0; give a number above 0\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(("http://127.0.0.1:9/",), "cannot reach 127.0.0.1:9 (refused)", id="nobody listens"),
        pytest.param(("http://nowhere.invalid/",), "cannot find host 'nowhere.invalid'", id="no such host"),
        pytest.param(("http://h/", "--output", "/nowhere/x"), "cannot write --output /nowhere/x", id="no directory"),
        pytest.param(("http://h/", "--output", "/dev/null"), "/dev/null is not a regular file", id="a device"),
    ],
)
def test_failures_are_one_line(args: tuple[str, ...], message: str) -> None:
    done = headgate_load(*args, "--duration", "60")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_leaves_no_half_file(url: str, tmp_path: Path) -> None:
    output = tmp_path / "samples.jsonl"
    done = headgate_load(url, "--requests", "9", "--output", str(output), before=FULL_DISK)
    assert done.returncode == 1
    assert f"cannot write --output {output}: File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Requests" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_interrupt(url: str, tmp_path: Path) -> None:
    output = tmp_path / "samples.jsonl"
    command = [sys.executable, "-c", COMMAND, url, "--duration", "60", "--output", str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 10
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "headgate load: interrupted\n")
    assert list(tmp_path.iterdir()) == []
