"""What can go wrong in a ``rolled_back`` block, in words."""

from __future__ import annotations

from headgate.errors import LeaseError

_LOOP_REMEDIES = (
    "Remedies: 1. `with TestClient(app) as client:` keeps one loop for all requests; without `with`, each request has "
    "its own. 2. in an async test use httpx.AsyncClient(transport=httpx.ASGITransport(app)), which stays on the test's "
    "loop. 3. give the fixtures and tests of one block one loop scope. 4. postgresql+psycopg:// is bound to no loop."
)


def block_has_ended(database: str) -> LeaseError:
    """A session outlived its block."""
    return LeaseError(
        f"database {database!r}: this session belongs to a rolled_back() block that has ended; everything in it is "
        "undone.\n"
        "Remedies: 1. close sessions, and await tasks and threads that use them, inside the block. "
        "2. let the fixture with the block begin before the ones that open sessions."
    )


def loop_has_ended(database: str, driver: str) -> LeaseError:
    """What the block wrote is gone, because the connection was bound to an event loop that is over."""
    return LeaseError(
        f"database {database!r}: the event loop that wrote in this rolled_back() block has ended, and {driver}'s "
        f"connection with it: what it wrote is undone already.\n{_LOOP_REMEDIES}"
    )


def other_loop(database: str, driver: str) -> LeaseError:
    """A second event loop asks for a connection that is bound to the first."""
    return LeaseError(
        f"database {database!r}: this rolled_back() block has one async connection, which belongs to the event loop "
        f"that used it first, and {driver} cannot use it on another one.\n{_LOOP_REMEDIES}"
    )


def pool_of_other_loop(database: str, driver: str) -> LeaseError:
    """What the pool had to give was opened by code that ran on another event loop before the block."""
    return LeaseError(
        f"database {database!r}: the async engine's pool has a connection that was opened on another event loop before "
        f"this rolled_back() block, and {driver} cannot use it on this one.\n"
        "Remedies: 1. end the coroutine that used it, such as one that creates the tables, with "
        "`await db.dispose_async()`. 2. create the tables with the sync engine: metadata.create_all(db.engine)."
    )


def other_writer(database: str, *, has_failed: bool, site: str, max_wait_ns: int) -> LeaseError:
    """Two sessions would have to write at once."""
    state = "has failed and was not rolled back" if has_failed else "has uncommitted changes"
    return LeaseError(
        f"database {database!r}: another session of this rolled_back() block {state}, and nothing was heard of it for "
        f"{max_wait_ns / 1e9:.2f} s (max_wait).\n"
        "State: all sessions of the block share one connection, so one can write at a time.\n"
        f"Where: the other one wrote first at {site or 'an unknown place'}.\n"
        "Remedies: 1. commit or close that session first: inside the block a commit is undone, too. "
        "2. raise max_wait= if it is only slow. 3. test what needs two open transactions without rolled_back()."
    )


def other_kind(database: str, *, is_async: bool) -> LeaseError:
    """Sessions of one kind wrote, and one of the other kind would not see it."""
    this, other = ("an async", "sync") if is_async else ("a sync", "async")
    return LeaseError(
        f"database {database!r}: {this} session cannot see what {other} sessions wrote in this rolled_back() block.\n"
        "State: the two kinds have two connections, and neither ever commits for good.\n"
        "Remedies: 1. write the test's rows with the kind of session the app uses: in a sync test of an async app "
        "`client.portal.call(write_rows)` inside `with TestClient(app) as client:`. 2. make it an async test with "
        "httpx.AsyncClient(transport=httpx.ASGITransport(app)). 3. test what needs both without rolled_back()."
    )


def was_committed(database: str) -> LeaseError:
    """The block's transaction was ended past us."""
    return LeaseError(
        f"database {database!r}: something inside this rolled_back() block ended its transaction, so what came before "
        "may be committed for good.\n"
        "Remedies: 1. look for COMMIT in functions, in scripts of several statements, or on driver_connection. "
        "2. test that code without rolled_back(), on a database of its own."
    )


def two_phase(database: str) -> LeaseError:
    """What is prepared is out of our hands."""
    return LeaseError(
        f"database {database!r}: a two-phase transaction cannot be undone once it is prepared.\n"
        "Remedy: test it without rolled_back()."
    )


def did_not_survive(database: str) -> LeaseError:
    """A statement was interrupted, and the connection is of no use any more."""
    return LeaseError(
        f"database {database!r}: the connection of this rolled_back() block did not survive an interrupted statement, "
        "so nothing more can be done in the block. What it did is undone.\n"
        "Remedy: end the block; if the interruption was wanted, give that part a block of its own."
    )


def memory_is_in_use(database: str) -> LeaseError:
    """An in-memory SQLite database has one connection, and somebody's changes are uncommitted on it."""
    return LeaseError(
        f"database {database!r}: rolled_back() cannot begin, because another session has uncommitted changes, and an "
        "in-memory SQLite database has one connection for all.\n"
        "Remedy: commit or close that session before the block."
    )


def with_in_a_loop(database: str) -> LeaseError:
    """``with`` where only ``async with`` can wait."""
    return LeaseError(
        f"database {database!r}: `with db.rolled_back()` on a thread that runs an event loop could not wait for its "
        "async connection at the end.\n"
        "Remedy: `async with db.rolled_back()`; it serves sync sessions, too."
    )


def wrong_order(database: str) -> LeaseError:
    """A block ends that is not the innermost one."""
    return LeaseError(
        f"database {database!r}: this rolled_back() block ends twice, or before a block inside it.\n"
        "Remedy: let the fixture of the inner block ask for the fixture of the outer one."
    )
