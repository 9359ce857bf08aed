"""Reading: how a proved read runs outside of any transaction, and what there is to do when it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headgate.admission import current_admission
from headgate.cancelling import leave, run_for
from headgate.executing import execute

if TYPE_CHECKING:
    from headgate.cursor import VirtualCursor
    from headgate.lease import VirtualConnection
    from headgate.lent import Lease


class RefusedByGuardError(Exception):
    """The server has refused to write for a statement that was taken for a read."""


class NeverSentError(Exception):
    """The connection was ending before the statement could be sent."""


def run_read(
    owner: VirtualConnection, lease: Lease, cursor: VirtualCursor, statement: str, args: Any, kwargs: Any
) -> Any:
    """Execute a proved read, and leave its connection to whoever waits for one.

    :raises RefusedByGuardError: it must run in a transaction.
    :raises NeverSentError: it must run on another connection.
    """
    driver, dbapi, flips = lease.lender.driver, lease.dbapi, lease.standing.flips
    real = cursor.on(lease)
    has_failed = False
    if flips:
        driver.enter_autocommit(dbapi)
    try:
        try:
            admission = current_admission.get()
            if admission is None:  # ``execute`` without the call, which costs as much as all it does
                result = real.execute(statement, *args, **kwargs)
            else:
                result = run_for(admission, lease, real.execute, (statement, *args), kwargs)
        except Exception as error:
            _judge(lease, error)
            driver.forget_plan(dbapi, real)
            result = execute(lease, real.execute, statement, args, kwargs)
        if driver.needs_finish:
            cursor.finish()
        elif not driver.buffers:
            owner.remember_unread(cursor)
    except Exception:
        # SQLAlchemy is about to ask whether it was a disconnect, and must see one.
        has_failed = driver.is_dead(dbapi)
        raise
    except BaseException as error:
        leave(lease, error)
        raise
    finally:
        if flips:
            driver.leave_autocommit(dbapi)
        if not has_failed:
            owner.rest(lease)
    return result


def _judge(lease: Lease, error: Exception) -> None:
    """Return if the read may run again as it is, after a stale plan; raise what else there is to do.

    :raises RefusedByGuardError: it must run in a transaction.
    :raises NeverSentError: it must run on another connection.
    """
    driver = lease.lender.driver
    if lease.guarded and driver.is_read_only_violation(error):
        raise RefusedByGuardError from error
    if driver.was_never_sent(error):
        lease.is_suspect = True
        raise NeverSentError from error
    if not driver.is_stale_plan(error):
        raise error
