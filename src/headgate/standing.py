"""Standing: what is true of a physical connection as long as it lives, asked once when it is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headgate.drivers import Cancel, IdleWatch
from headgate.guard import ASKED, GUARD, Verdict, judge_default, stop_asking_for_guard

if TYPE_CHECKING:
    from headgate.lending import Lender
    from headgate.lent import Lease

STANDING = "headgate.standing"
"""Key in a physical connection's ``info``: what was asked of it once."""


class Standing(NamedTuple):
    """What is true of a physical connection as long as it lives.

    :ivar can_lease: its isolation allows other connections between two statements.
    :ivar flips: its driver begins transactions by itself, so a read must keep it from that.
    :ivar has_guard: it was started with the guard.
    :ivar guarded: the server refuses writes outside of the transactions we begin; until the application itself sets
        what they may do by default.
    :ivar watch: tells at once whether an idle connection has something to say.
    :ivar cancel: asks the server to stop what the connection runs.
    """

    can_lease: bool
    flips: bool
    has_guard: bool
    guarded: bool
    watch: IdleWatch
    cancel: Cancel


def ask_standing(lease: Lease) -> Standing | None:
    """Asked once of each physical connection, after its ``connect`` listeners; None if it has to be made anew."""
    lender, driver, dbapi, info = lease.lender, lease.lender.driver, lease.dbapi, lease.record.info
    facts = driver.learn(dbapi)
    if not facts.can_lease:
        lender.tell_once(
            "connections are not leased: their transactions need one connection from their first statement on "
            "(isolation REPEATABLE READ or higher, or a driver in another transaction mode)"
        )
    lender.proof.learn_types(facts.enums)
    flips, is_up = not driver.is_autocommit(dbapi), info.get(GUARD, False)
    verdict = judge_default(facts.default, has_asked=info.get(ASKED, False), is_up=is_up, flips=flips)
    if verdict is Verdict.WITHOUT:
        stop_asking_for_guard(lender.pool._dialect)
        return None
    guarded = verdict in (Verdict.UP, Verdict.RAISE)
    if is_up and not guarded:
        driver.begin_as_given(dbapi)
    if verdict in (Verdict.RAISE, Verdict.LOWER):
        driver.set_guard(dbapi, on=guarded)
    if verdict in (Verdict.ABSENT, Verdict.LOWER) and facts.can_lease:
        _tell_that_guard_is_off(lender)
    info[STANDING] = standing = Standing(
        facts.can_lease, flips, guarded, guarded, driver.watch_idle(dbapi), driver.canceller(dbapi)
    )
    return standing


def _tell_that_guard_is_off(lender: Lender) -> None:
    if lender.options.guard and lender.driver.family == "postgresql":
        lender.tell_once(
            "the server's guard against reads that write is off: a pooler, a standby, a server before 14, "
            "catalogs that may not be read, target_session_attrs, or options of your own forbid it"
        )
