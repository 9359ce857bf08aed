"""Executing and fetching for the request that runs here, if there is one, and what is left when that is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.admission import current_admission
from headgate.cancelling import ends_transaction, leave, refuse_commit, rolls_back, run_for

if TYPE_CHECKING:
    from headgate.lent import Lease


def execute(lease: Lease, call: Callable[..., Any], statement: Any, args: Any, kwargs: Any) -> Any:
    """Execute, for the request that runs here if there is one.

    :raises Overloaded: the request was given up; the statement was not sent, or it was cancelled.
    """
    admission = current_admission.get()
    if admission is None:
        return call(statement, *args, **kwargs)
    return run_for(admission, lease, call, (statement, *args), kwargs)


def fetch(lease: Lease, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Fetch, as ``execute`` executes."""
    admission = current_admission.get()
    return call(*args, **kwargs) if admission is None else run_for(admission, lease, call, args, kwargs)


def interruptible(
    lease: Lease, call: Callable[..., Any], statement: Any = None, args: Any = (), kwargs: Any = None
) -> Any:
    """Execute, or without a statement call what ends a transaction; whoever is interrupted leaves the connection.

    :raises Overloaded: the request was given up; nothing was sent, or it was cancelled.
    """
    is_ending = statement is None or ends_transaction(statement)
    if is_ending and isinstance(statement, str) and not rolls_back(statement):
        refuse_commit(current_admission.get(), lease)
    try:
        if statement is None:
            return call()
        return call(statement, *args, **kwargs) if is_ending else execute(lease, call, statement, args, kwargs)
    except Exception:
        raise
    except BaseException as error:
        if is_ending:  # it may be done by now, and must not be cancelled
            lease.is_suspect = True
        else:
            leave(lease, error)
        raise
