"""Cancelling: it never hits what comes after a statement, and it doesn't stop before the statement is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from headgate import Overloaded, cancelling
from headgate.admission import Admission
from headgate.cancelling import cancel_all, ends_transaction, run_for
from headgate.config import GateOptions
from headgate.gate import Gate


class CanceledError(Exception):
    pass


class Server:
    """A statement runs until it was asked so many times to stop."""

    def __init__(self, requests: int = 1) -> None:
        self.requests = requests
        self.asked = 0
        self.runs = threading.Event()
        self.is_over = threading.Event()
        self.has_cut = threading.Event()
        self.while_asking: Callable[[], object] = lambda: None
        self.fails = False
        driver = SimpleNamespace(was_cancelled=lambda error: isinstance(error, CanceledError), cut=self.cut)
        lender = SimpleNamespace(driver=driver, gate=Gate(GateOptions(), name="books"))
        standing = SimpleNamespace(cancel=self.cancel)
        self.lease: Any = Lease(lender=lender, standing=standing, dbapi=None, kind="sync", is_suspect=False)

    def run(self, statement: str) -> str:
        """A statement, cancelled in the end."""
        self.runs.set()
        assert self.is_over.wait(5)
        if self.has_cut.is_set():
            raise ConnectionError("the connection is lost")
        raise CanceledError(statement)

    def cancel(self) -> None:
        self.asked += 1
        self.while_asking()
        if self.fails:
            raise OSError("no route to the server")
        if self.asked >= self.requests:
            self.is_over.set()

    def cut(self, dbapi: Any) -> bool:
        self.has_cut.set()
        self.is_over.set()
        return True


class Lease(SimpleNamespace):
    __hash__ = object.__hash__


def run(admission: Admission, server: Server) -> Any:
    return run_for(admission, server.lease, server.run, ("SELECT 1",), {})


@pytest.fixture
def admission() -> Admission:
    """Of a request; in the end nothing of it runs."""
    return Admission(0)


def end_soon(admission: Admission, server: Server, reason: Any = "deadline") -> threading.Thread:
    def end() -> None:
        assert server.runs.wait(5)
        admission.end(reason)

    thread = threading.Thread(target=end)
    thread.start()
    return thread


@pytest.mark.parametrize("requests", [1, 3])
@pytest.mark.parametrize("reason", ["deadline", "gone"])
def test_it_is_cancelled_until_it_is_over(admission: Admission, requests: int, reason: str) -> None:
    server = Server(requests)
    thread = end_soon(admission, server, reason)
    with pytest.raises(Overloaded, match="cancelled on the server") as caught:
        run(admission, server)
    thread.join()
    assert server.asked == requests
    assert (caught.value.reason, caught.value.nothing_executed) == (reason, False)
    assert isinstance(caught.value.__cause__, CanceledError)
    assert not admission.running
    assert not admission.cancellings


def test_its_holder_goes_on_when_the_request_was_delivered(admission: Admission) -> None:
    server, delivers, has_left = Server(), threading.Event(), threading.Event()

    def while_asking() -> None:
        server.is_over.set()  # by itself, just before the server hears that it should be
        assert not has_left.wait(0.05)
        delivers.set()

    server.while_asking = while_asking
    thread = end_soon(admission, server)
    with pytest.raises(Overloaded):
        run(admission, server)
    assert delivers.is_set()
    has_left.set()
    thread.join()


def test_what_is_over_is_not_cancelled(admission: Admission) -> None:
    server = Server()
    assert run_for(admission, server.lease, lambda: "done", (), {}) == "done"
    admission.end("deadline")
    assert server.asked == 0


def test_what_was_not_sent_is_not_cancelled(admission: Admission) -> None:
    server = Server()
    admission.end("gone")
    with pytest.raises(Overloaded, match=r"not sent.*client has gone"):
        run(admission, server)
    assert server.asked == 0
    assert not server.runs.is_set()


def test_a_statement_that_wins_has_its_result(admission: Admission) -> None:
    server = Server()

    def win() -> str:
        admission.end("deadline")
        assert server.is_over.wait(5)
        return "done"

    assert run_for(admission, server.lease, win, (), {}) == "done"
    assert not admission.cancellings


def test_an_error_of_its_own_stays_what_it_is(admission: Admission) -> None:
    server = Server()

    def fail() -> None:
        admission.end("deadline")
        raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        run_for(admission, server.lease, fail, (), {})


def test_a_server_that_cannot_be_told_loses_the_connection(
    admission: Admission, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "headgate.pool")
    monkeypatch.setattr(cancelling, "CUT_AFTER_S", 0.0)
    monkeypatch.setattr(cancelling, "PAUSES_ALONE_S", (0, 0))
    server = Server()
    server.fails = True
    thread = end_soon(admission, server)
    with pytest.raises(ConnectionError):
        run(admission, server)
    thread.join()
    assert "database 'books': a statement could not be cancelled: OSError" in caplog.text


def test_an_interrupted_wait_makes_the_connection_suspect(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    server = Server()
    monkeypatch.setattr(cancelling.Cancelling, "finish", interrupt)

    def win() -> None:
        cancel_all(admission)

    with pytest.raises(KeyboardInterrupt):
        run_for(admission, server.lease, win, (), {})
    assert server.lease.is_suspect
    assert server.is_over.wait(5)


def test_without_a_thread_nobody_waits_for_one(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    server = Server()
    monkeypatch.setattr(threading.Thread, "start", fail)

    def win() -> str:
        admission.end("deadline")
        return "done"

    assert run_for(admission, server.lease, win, (), {}) == "done"


@pytest.mark.parametrize(
    ("statement", "ends"),
    [
        ("COMMIT", True),
        ("  commit prepared 'x'", True),
        ("PREPARE TRANSACTION 'x'", True),
        ("rollback to savepoint a", True),
        ("END", True),
        ("/* app='x' */ -- trace\n COMMIT", True),
        ("/* COMMIT */ SELECT 1", False),
        ("/* never closed COMMIT", False),
        ("SELECT 'COMMIT'", False),
        ("UPDATE item SET name = 'end'", False),
        (b"COMMIT", False),
    ],
)
def test_what_ends_a_transaction_is_known(statement: Any, ends: bool) -> None:
    assert ends_transaction(statement) is ends
