"""Why an event loop stood still, judged from clocks and looks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from headgate.xray.observation import NOWHERE, Site
from headgate.xray.stalls import Clocks, Look, judge, look_at

MS = 1_000_000
START = Clocks(0, 0, 0, 0, 0)
LINE = Site("app.py", 3, "handler", "time.sleep(1)")
OTHER_LINE = Site("app.py", 9, "other", "pass")
BUSY = Look(LINE, "")
IMPORTING = Look(LINE, "json.loads", module="pandas")
WAITING = Look(LINE, "threading.Event.wait", waits=True)
LIBRARY = Look(NOWHERE, "json.JSONEncoder.encode")


def after(*, ran: int = 0, loop: int = 0, asleep: int = 0, collecting: int = 0, waiting: int = 0) -> Clocks:
    return Clocks(300 * MS, ran * MS, loop * MS, asleep * MS, collecting * MS, waiting * MS)


@pytest.mark.parametrize(
    ("clocks", "looks", "overslept_ms", "verdict", "look"),
    [
        pytest.param(after(ran=2), [BUSY], 0, "code", BUSY, id="a call that uses no CPU"),
        pytest.param(after(ran=290, loop=290), [BUSY], 250, "code", BUSY, id="a call that keeps the interpreter"),
        pytest.param(after(ran=290, loop=290), [], 0, "code", None, id="one that nobody has looked at"),
        pytest.param(after(ran=2), [LIBRARY], 0, "code", LIBRARY, id="a library's own code"),
        pytest.param(after(asleep=290), [BUSY], 280, "suspended", None, id="the machine slept"),
        pytest.param(after(ran=1), [BUSY], 290, "suspended", None, id="the process was stopped"),
        pytest.param(after(ran=60), [BUSY], 200, "descheduled", None, id="the machine was busy"),
        pytest.param(after(ran=120, loop=120), [BUSY], 170, "code", BUSY, id="one that shares its core"),
        pytest.param(after(ran=60, waiting=200), [BUSY], 0, "descheduled", None, id="the loop alone was kept waiting"),
        pytest.param(after(ran=10), [], 0, "descheduled", None, id="the loop had nothing to do and yet was late"),
        pytest.param(after(ran=250, loop=250, collecting=240), [BUSY], 200, "collection", None, id="a collection"),
        pytest.param(after(ran=2), [IMPORTING], 0, "import", IMPORTING, id="an import"),
        pytest.param(after(ran=2), [WAITING], 0, "thread", WAITING, id="a thread that another waits for"),
        pytest.param(after(ran=290, loop=5), [], 0, "contended", None, id="other threads, polling"),
        pytest.param(
            after(ran=290, loop=5), [BUSY, Look(OTHER_LINE, "")], 0, "contended", None, id="other threads, anywhere"
        ),
        pytest.param(after(ran=290, loop=5), [BUSY, BUSY], 0, "code", BUSY, id="other threads, and a call of its own"),
    ],
)
def test_the_verdict(clocks: Clocks, looks: list[Look], overslept_ms: int, verdict: str, look: Look | None) -> None:
    assert judge(START, clocks, looks, overslept_ms * MS) == (verdict, look)


def test_of_several_looks_the_most_frequent_counts_and_then_the_latest() -> None:
    once, later = Look(OTHER_LINE, ""), Look(OTHER_LINE, "json.loads")
    assert judge(START, after(), [once, BUSY, BUSY, later], 0) == ("code", BUSY)
    assert judge(START, after(), [BUSY, once], 0) == ("code", once)


def stack_of(run: Callable[[Callable[[], None]], None]) -> list[FrameType]:
    """The stack in which ``run`` calls what it is given, the deepest frame first, out to this function."""
    found: list[FrameType] = []

    def look() -> None:
        frame = sys._getframe(1)
        while frame.f_code is not stack_of.__code__:
            found.append(frame)
            assert frame.f_back is not None
            frame = frame.f_back

    run(look)
    return found


def compiled(source: str, file: str, module: str) -> dict[str, Callable[..., None]]:
    """Functions as if they were written in a file."""
    names: dict[str, Callable[..., None]] = {"__name__": module}  # type: ignore[dict-item]
    exec(compile(source, file, "exec"), names)
    return names


CALLS = "def run(look):\n    look()\n"
LIBRARY_FILE = f"{sys.prefix}/lib/site-packages/sqlalchemy/orm/session.py"


def nobody(_: list[FrameType]) -> object | None:
    return None


def test_the_applications_line_and_what_it_has_called() -> None:
    library = compiled(CALLS, LIBRARY_FILE, "sqlalchemy.orm.session")["run"]
    stack = stack_of(lambda look: library(look))
    look = look_at(stack, nobody, lambda: (OTHER_LINE, None), is_whole=True)
    assert (look.site.function, look.what) == (
        "test_the_applications_line_and_what_it_has_called.<locals>.<lambda>",
        "sqlalchemy.run",
    )


def test_a_library_without_the_applications_line_is_named_as_itself() -> None:
    stack = stack_of(compiled(CALLS, LIBRARY_FILE, "sqlalchemy.orm.session")["run"])
    asked: list[str] = []
    look = look_at(stack, lambda _: "request", lambda: (asked.append("who"), (LINE, None))[1], is_whole=True)
    assert look == Look(NOWHERE, "sqlalchemy.run", "request")
    assert asked == []


def test_in_a_greenlet_of_sqlalchemys_the_latest_statement_tells_the_line() -> None:
    stack = stack_of(compiled(CALLS, LIBRARY_FILE, "sqlalchemy.orm.session")["run"])
    assert look_at(stack, nobody, lambda: (LINE, "request"), is_whole=False) == Look(
        LINE, "async sqlalchemy.run", "request"
    )


def test_elsewhere_no_statement_is_blamed() -> None:
    stack = stack_of(compiled(CALLS, LIBRARY_FILE, "somewhere")["run"])
    assert look_at(stack, nobody, lambda: (LINE, "request"), is_whole=False) == Look(NOWHERE, "somewhere.run")


def test_an_import_is_blamed_on_the_line_that_imports() -> None:
    inside = compiled(CALLS, "/srv/shop/slow.py", "slow")["run"]
    imports = compiled("def _find_and_load(name, look):\n    inside(look)\n", "<frozen importlib._bootstrap>", "x")
    imports["inside"] = inside
    stack = stack_of(lambda look: imports["_find_and_load"]("slow", look))
    look = look_at(stack, nobody, lambda: (LINE, None), is_whole=True)
    assert look.module == "slow"
    assert look.site.function.endswith("<lambda>")
