"""Connections that nobody has closed before the garbage collector came."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy.pool.base

from headgate.lending import Lender
from headgate.xray.seams import Seam


def collection_seams(note: Callable[[object], None]) -> Iterator[Seam]:
    """Wrap what is called for a connection whose holder was collected; ``note`` is given the pool's entry or lease."""
    yield Seam(sqlalchemy.pool.base, "_finalize_fairy", _finalizing(note))
    yield Seam(Lender, "lose", _losing(note))


def _finalizing(note: Callable[[object], None]) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def _finalize_fairy(connection: Any, record: Any, pool: Any, *args: Any, **options: Any) -> Any:
            if record is not None and _is_collection(record, args, options):
                note(record)
            return original(connection, record, pool, *args, **options)

        return _finalize_fairy

    return wrap


def _is_collection(record: Any, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """SQLAlchemy 2.1 says so; 2.0 passes the dead reference, which is no longer the record's if that is lent again."""
    if "is_gc_cleanup" in options:
        return bool(options["is_gc_cleanup"]) and bool(getattr(record, "needs_gc", True))
    reference = args[0] if args else None
    return isinstance(reference, weakref.ref) and record.fairy_ref is reference


def _losing(note: Callable[[object], None]) -> Callable[[Any], Any]:
    def wrap(original: Any) -> Any:
        def lose(lender: Lender, lease: Any, *, is_warm: bool) -> Any:
            if not is_warm and not lease.is_over:
                note(lease)
            return original(lender, lease, is_warm=is_warm)

        return lose

    return wrap
