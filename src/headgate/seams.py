"""The private names of SQLAlchemy and its adapters that leases lean on, all in one place.

They are looked for when a pool is made. Where one is missing, in some later version, the pool stays SQLAlchemy's own.
"""

from __future__ import annotations

import importlib
import logging

import sqlalchemy

from headgate.config import LeaseOptions
from headgate.errors import ConfigError

log = logging.getLogger("headgate.pool")

SEAMS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "sqlalchemy.pool",
        "QueuePool",
        (
            "_close_connection",
            "_dec_overflow",
            "_do_get",
            "_do_return_conn",
            "_invalidate",
            "_should_log_debug",
            "_should_wrap_creator",
        ),
    ),
    (
        "sqlalchemy.pool.base",
        "_ConnectionFairy",
        ("_checkout", "_close_special", "_connection_record", "_counter"),
    ),
    (
        "sqlalchemy.pool.base",
        "_ConnectionRecord",
        (
            "_checkin_failed",
            "_is_hard_or_soft_invalidated",
            "checkin",
            "dbapi_connection",
            "fairy_ref",
            "finalize_callback",
            "get_connection",
            "starttime",
        ),
    ),
    ("sqlalchemy.engine.default", "DefaultDialect", ("_do_ping_w_event",)),
    ("sqlalchemy.util.queue", "Queue", ("get", "put", "qsize")),
    ("sqlalchemy.util", "concurrency", ("in_greenlet",)),
    (
        "sqlalchemy.dialects.postgresql.asyncpg",
        "AsyncAdapt_asyncpg_connection",
        ("_connection", "_isolation_setting", "_transaction", "isolation_level"),
    ),
    ("sqlalchemy.dialects.postgresql.psycopg", "AsyncAdapt_psycopg_connection", ("_connection",)),
    ("sqlalchemy.dialects.sqlite.aiosqlite", "AsyncAdapt_aiosqlite_connection", ("_connection",)),
)
"""Module, class and the names it must have. None of these modules needs a driver to be imported."""


def missing_seams() -> list[str]:
    """The names that the installed SQLAlchemy lacks."""
    return [
        f"{module}.{owner}.{name}"
        for module, owner, names in SEAMS
        for name in names
        if not hasattr(getattr(importlib.import_module(module), owner, None), name)
    ]


def can_lease_from_sqlalchemy(options: LeaseOptions) -> bool:
    """False, with a WARNING, if the installed SQLAlchemy lacks what leases lean on.

    :raises ConfigError: it does, and ``strict`` is set.
    """
    missing = missing_seams()
    if missing:
        message = (
            f"connections are not leased: SQLAlchemy {sqlalchemy.__version__} lacks {', '.join(missing)}. "
            "Install a version that Headgate's README names, or a newer Headgate."
        )
        if options.strict:
            raise ConfigError(message)
        log.warning(message)
    return not missing
