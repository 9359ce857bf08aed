"""What a lease needs of SQLAlchemy's pool entries: out, in, and a fairy only where something asks for one.

SQLAlchemy makes a fairy with a finalizer for each checkout. A lease is the holder itself, so it does without, except
for listeners, pre-ping, echo, resets with work to do, ``detach`` and what the garbage collector finds.
"""

from __future__ import annotations

import time
import weakref
from typing import Any

from sqlalchemy import util
from sqlalchemy.pool import QueuePool, base
from sqlalchemy.pool.base import _ConnectionFairy

_LENT: Any = weakref.ref(QueuePool)
"""Marks an entry as in use where no fairy exists; refers to something that never dies."""


def check_out(pool: Any) -> tuple[Any, Any]:
    """An entry with a live connection, and its fairy if something in this pool wants one.

    :raises BaseException: whatever connecting, pinging and the listeners raise; nothing is checked out then.
    """
    if pool.dispatch.checkout or pool._pre_ping or pool._should_log_debug():
        fairy: Any = _ConnectionFairy._checkout(pool)
        return fairy._connection_record, fairy
    record = pool._do_get()
    try:
        record.get_connection()
    except BaseException as error:
        with util.safe_reraise():
            record._checkin_failed(error, _fairy_was_created=False)
        raise
    record.fairy_ref = _LENT
    return record, None


def is_plain(pool: Any) -> bool:
    """True if nobody wants to know that an idle connection is checked in."""
    return pool._reset_on_return is not base.reset_commit and not (pool.dispatch.reset or pool._should_log_debug())


def check_in_plainly(record: Any) -> None:
    """Check in a connection on which no transaction is open; its finalizers and ``checkin`` listeners run."""
    record.checkin(_fairy_was_created=False)


def fairy_for(pool: Any, record: Any) -> Any:
    """A fairy for an entry that is checked out without one; if it is forgotten, SQLAlchemy cleans up after it."""
    echo = pool._should_log_debug()
    fairy: Any = _ConnectionFairy(pool, record.dbapi_connection, record, echo)
    fairy._counter = 1
    if hasattr(base, "_strong_ref_connection_records"):  # 2.0: the finalizer is the reference's callback
        _watch(fairy, pool, record, echo)
    else:
        record.fairy_ref = weakref.ref(fairy, lambda _: None)
    return fairy


def _watch(fairy: Any, pool: Any, record: Any, echo: Any) -> None:
    def clean_up(forgotten: Any) -> None:
        finalize: Any = base._finalize_fairy
        finalize(None, record, pool, forgotten, echo, transaction_was_reset=False)

    record.fairy_ref = reference = weakref.ref(fairy, clean_up)
    base._strong_ref_connection_records[reference] = record  # type: ignore[attr-defined]


def may_be_passed_on(pool: Any, record: Any) -> bool:
    """False if a checkin and a checkout would do something with this connection: tell somebody, or replace it."""
    dispatch = pool.dispatch
    return not (
        record.finalize_callback
        or dispatch.checkin
        or dispatch.checkout
        or not is_plain(pool)
        or record._is_hard_or_soft_invalidated()
        or (pool._recycle > -1 and time.time() - record.starttime > pool._recycle)
    )
