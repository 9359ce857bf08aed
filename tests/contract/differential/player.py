"""A player runs a program's steps on one arm and tells after each what a program could see of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, Engine, Row, Transaction, event, func, inspect, select, text
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import InstanceState, Session, SessionTransaction, with_loader_criteria
from sqlalchemy.util import await_only

from .arms import Arm, backend_of, isolation_of
from .models import Audit, Author, Base, Book, Tag, book_tag
from .settings import ONE_SNAPSHOT, Setting
from .steps import Step, deed_of, step

ResultT = TypeVar("ResultT")

PASSING = re.compile(
    "|".join(
        (
            r"0x[0-9a-f]+",
            r"tuple \(\d+,\d+\)",
            r"\"(?:stock|leased)\"(?=\.\")",  # the arm's schema, where PostgreSQL quotes it
            r"[Pp]rocess \d+",
            r"transaction \d+",
            r"c_[0-9a-f]+_[0-9a-f]+",
            r"pivot \d+",
            r"__asyncpg_stmt_[0-9a-f]+__",
            r"(?:session|this is) '\d+'",
        )
    )
)
"""What differs between two runs of the same program on the same arm: addresses, places of rows, names of cursors,
numbers of sessions."""


REFUSED_COMMIT = re.compile("database is locked|could not serialize")


@dataclass(frozen=True, slots=True)
class Moment:
    """What a program could see after a step; every field must be the same on both arms."""

    outcome: Any
    failed: bool
    warned: list[str]
    events: list[str]
    sessions: list[Any]
    connections: list[Any]
    objects: list[Any]

    def differences(self, other: Moment) -> Iterator[tuple[str, Any, Any]]:
        """The fields that differ."""
        for field in fields(self):
            one, two = getattr(self, field.name), getattr(other, field.name)
            if one != two:
                yield field.name, one, two


class _Order:
    """Numbers what sets are made of as it comes up, the same way on both arms.

    SQLAlchemy keeps the states of objects, and a session's connections, in sets, whose order would else be that of
    their addresses, and with it that of events, of some statements, of the commits of several connections (of which
    SQLite refuses one while another reads), and sometimes even of what a flush does.
    """

    numbers = count()

    def hash_of(self, known: Any) -> int:
        number: int | None = known.__dict__.get("_number")
        if number is None:
            number = known.__dict__["_number"] = next(self.numbers)
        return number


_order = _Order()


@contextmanager
def sets_in_order() -> Iterator[None]:
    """While programs run, sets of states and of connections iterate in the same order on both arms."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (InstanceState, Connection):
            patch.setattr(kind, "__hash__", lambda known: _order.hash_of(known))
        patch.setattr(Transaction, "__hash__", lambda known: _order.hash_of(known.connection))
        yield


class WatchedSession(Session):
    """A session whose events go to the player it belongs to."""

    player: Player
    number: int


class Player:
    """One arm's sessions, connections and objects during one program."""

    def __init__(self, arm: Arm, setting: Setting) -> None:
        self.arm = arm
        self.setting = setting
        self.commit_was_refused = False
        """Somebody else's lock stood against a COMMIT, or what somebody else had committed."""
        self.events: list[str] = []
        self._numbers = count()
        self.objects: list[Any] = []
        self._ordinals: dict[int, int] = {}
        self.connections: dict[int, Connection] = {}
        self.transactions: dict[int, list[Any]] = {0: [], 1: []}
        self.savepoints: dict[int, list[SessionTransaction]] = {0: [], 1: []}
        self.results: dict[int, Any] = {}
        self.begun: dict[int, list[Connection]] = {0: [], 1: [], 2: []}
        self._come_on()
        self.sessions = [self._open_first(), self._open(1, bind=self.engine())]

    def _come_on(self) -> None:
        self.arm.watch = self
        _order.numbers = self._numbers

    # sessions and connections

    def engine(self, number: int = 0) -> Engine:
        """The engine that the setting asks for, or a second one of the same arm."""
        return self.arm.engine(self.setting.isolation, number)

    def _open_first(self) -> WatchedSession:
        binding = self.setting.binding
        if binding == "several binds":
            one, two = self.engine(), self.engine(1)
            binds = {Author: one, Book: one, Audit: one, book_tag: one, Tag: two}
            return self._open(0, binds=binds)
        if binding == "engine":
            return self._open(0, bind=self.engine())
        connection = self.connections[0] = self.engine().connect()
        self.note(f"joined after {self.perform(step('begin_outside', outer=self.setting.outer))}")
        return self._open(0, bind=connection, join_transaction_mode=binding)

    def _open(self, number: int, **options: Any) -> WatchedSession:
        session = WatchedSession(
            autoflush=self.setting.autoflush,
            expire_on_commit=self.setting.expire_on_commit,
            close_resets_only=self.setting.close_resets_only,
            **options,
        )
        session.player, session.number = self, number
        return session

    def session(self, number: int) -> WatchedSession:
        """The session of this number."""
        return self.sessions[number]

    def open_another(self) -> WatchedSession:
        """A session that no later step can reach."""
        return self._open(2, bind=self.engine())

    def async_session(self, number: int) -> AsyncSession:
        """The same session behind SQLAlchemy's async interface."""
        session: Any = self.sessions[number]
        return AsyncSession(sync_session_class=lambda **_: session)

    def connection(self, number: int) -> Connection:
        """The Core connection of this number; opened when first asked for."""
        known = self.connections.get(number)
        if known is None or known.closed:
            known = self.connections[number] = self.engine().connect()
            self.transactions[number] = []
        return known

    def async_connection(self, number: int) -> AsyncConnection:
        """The same connection behind SQLAlchemy's async interface."""
        return AsyncConnection(self.arm.async_engine(self.engine()), self.connection(number))

    def wait(self, coroutine: Any) -> Any:
        """Await in sync code, as everything on an async arm runs in a greenlet."""
        return await_only(coroutine)

    # objects

    def pick(self, kind: type[Base], index: int) -> Any:
        """One of the objects of this class met so far; None if there is none."""
        met = [known for known in self.objects if isinstance(known, kind)]
        return met[index % len(met)] if met else None

    def meet(self, known: Any) -> str:
        """The label of an object: the same object always has the same."""
        ordinal = self._ordinals.get(id(known))
        if ordinal is None:
            ordinal = self._ordinals[id(known)] = len(self.objects)
            self.objects.append(known)
        return f"{type(known).__name__}#{ordinal}"

    def render(self, value: Any) -> Any:
        """A value as both arms must have it."""
        if isinstance(value, Base):
            return self.meet(value)
        if isinstance(value, list | tuple | Row):
            return [self.render(one) for one in value]
        if isinstance(value, BaseException):
            return self._render_error(value)
        return PASSING.sub("…", f"{type(value).__name__} {value!r}")

    def _render_error(self, error: BaseException) -> str:
        original = getattr(error, "orig", None)
        about = f" of {type(original).__name__}" if original is not None else ""
        ended = f" invalidated {error.connection_invalidated}" if isinstance(error, DBAPIError) else ""
        return PASSING.sub("…", f"{type(error).__module__}.{type(error).__name__}{about}{ended}: {error}")

    # steps

    def take(self, step: Step) -> Moment:
        """Run one step and tell what could be seen."""
        self._come_on()
        self.events = []
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            outcome, failed = self._perform(step)
        told = [PASSING.sub("…", str(one.message)) for one in warned if issubclass(one.category, SAWarning)]
        return self._moment(outcome, failed, told)

    def perform(self, step: Step) -> Any:
        """Run one step; an error is an outcome like any other."""
        return self._perform(step)[0]

    def _perform(self, step: Step) -> tuple[Any, bool]:
        try:
            return self.render(self.run(step)), False
        except Exception as error:
            return self.render(error), True

    def run(self, step: Step) -> Any:
        """Run one step; errors leave it."""
        return deed_of(step).run(self, **dict(step.arguments))

    def _moment(self, outcome: Any, failed: bool, warned: list[str]) -> Moment:
        for session in self.sessions:
            for known in (*sorted(session.identity_map.values(), key=_identity), *session.new):
                self.meet(known)
        return Moment(
            outcome=outcome,
            failed=failed,
            warned=warned,
            events=self.events,
            sessions=[_describe_session(session, self.meet) for session in self.sessions],
            connections=[(number, _describe_connection(one)) for number, one in sorted(self.connections.items())],
            objects=[self._describe(known) for known in list(self.objects)],
        )

    def _describe(self, known: Any) -> Any:
        state: InstanceState[Any] = inspect(known)
        loaded = {name: self.render(value) for name, value in state.dict.items() if name != "_sa_instance_state"}
        return (
            self.meet(known),
            state.identity,
            _lifecycle(state),
            (state.expired, state.modified),
            sorted(state.unloaded),
            sorted(state.expired_attributes),
            sorted(state.committed_state),
            sorted(loaded.items()),
        )

    # events

    def note(self, what: str) -> None:
        """Remember an event."""
        self.events.append(PASSING.sub("…", what))

    def engine_event(self, name: str, connection: Connection, *args: Any) -> None:
        """An event of the engine's; the setting's listener runs statements in ``begin``."""
        self.note(" ".join(("engine", name, *(str(arg) for arg in args if isinstance(arg, str)))))
        if name == "begin" and "begin tenant" in self.setting.listeners:
            connection.exec_driver_sql(self._tenant("by_begin"))

    def handle_error(self, context: Any) -> None:
        """The engine's event of an error; a COMMIT has no statement."""
        original = type(context.original_exception).__name__
        self.note(f"handle_error {original} {context.is_disconnect} {context.statement}")
        if context.statement is None and REFUSED_COMMIT.search(str(context.original_exception)):
            self.commit_was_refused = True

    def session_event(self, name: str, session: WatchedSession, *args: Any) -> None:
        """An event of a session's; the setting's listeners run statements in some."""
        self.note(f"session {session.number} {name}")
        listener = LISTENERS.get(name)
        if listener is not None:
            listener(self, session, *args)

    def _tenant(self, value: str) -> str:
        return f"SET LOCAL app.tenant = '{value}'" if self.arm.is_postgresql else f"SELECT '{value}'"

    def _after_begin(self, session: WatchedSession, transaction: Any, connection: Connection) -> None:
        self.begun[session.number].append(connection)
        if "after_begin tenant" in self.setting.listeners:
            connection.execute(text(self._tenant("by_session")))
        if "after_begin set_config" in self.setting.listeners and self.arm.is_postgresql:
            connection.execute(select(func.set_config("app.tenant", "by_function", True)))

    def _before_flush(self, session: WatchedSession, *args: Any) -> None:
        if "before_flush read" in self.setting.listeners:
            counted = session.execute(select(func.count()).select_from(Author.__table__)).scalar_one()
            self.note(f"{counted} authors before flush")
        if "before_flush write" in self.setting.listeners:
            session.connection().execute(Audit.__table__.insert().values(note="flush"))  # type: ignore[attr-defined]

    def _before_commit(self, session: WatchedSession) -> None:
        if "before_commit write" in self.setting.listeners and session.get_transaction() is not None:
            session.execute(text("UPDATE tag SET label = label || '!' WHERE id = 2 AND length(label) < 9"))

    def _do_orm_execute(self, session: WatchedSession, state: Any) -> None:
        if "orm criteria" in self.setting.listeners and state.is_select and not state.is_column_load:
            state.statement = state.statement.options(with_loader_criteria(Book, Book.pages < 350))
        if "orm read" in self.setting.listeners and not state.is_column_load:
            session.connection().exec_driver_sql("SELECT 1")

    # the end

    def connections_of(self, number: int) -> list[Connection]:
        """The open connections of a session's transactions."""
        return [one for one in self.begun[number] if _is_open(one)]

    def open_connections(self) -> dict[int, Connection]:
        """The Core connections that are open."""
        return {number: one for number, one in self.connections.items() if _is_open(one)}


LISTENERS: dict[str, Callable[..., None]] = {
    "after_begin": Player._after_begin,
    "before_flush": Player._before_flush,
    "before_commit": Player._before_commit,
    "do_orm_execute": Player._do_orm_execute,
}


def _is_open(connection: Connection) -> bool:
    return not connection.closed and not connection.invalidated


def is_reading(connection: Connection) -> bool:
    """True if ours would hold nothing: whatever a stock connection holds now comes from reads alone."""
    return repr(connection.connection).startswith("<VirtualConnection reading")


def backend(connection: Connection) -> int:
    """The server process behind a stock connection."""
    return backend_of(connection.connection.dbapi_connection)


def has_lost_isolation(connection: Connection) -> bool:
    """True if a stock connection has an isolation option that the DBAPI connection behind it was never told.

    It was invalidated: SQLAlchemy applies the option once, and not again to what follows.
    """
    asked = connection.get_execution_options().get("isolation_level")
    return asked in ONE_SNAPSHOT and isolation_of(connection.connection.dbapi_connection) not in ONE_SNAPSHOT


def _lifecycle(state: InstanceState[Any]) -> str:
    words = ("transient", "pending", "persistent", "deleted", "detached", "was_deleted")
    return " ".join(word for word in words if getattr(state, word))


def _identity(known: Any) -> str:
    return repr(inspect(known).key)


def _describe_session(session: WatchedSession, meet: Callable[[Any], str]) -> Any:
    return (
        sorted(map(meet, session.new)),
        sorted(map(meet, session.dirty)),
        sorted(map(meet, session.deleted)),
        sorted(map(meet, session.identity_map.values())),
        session.in_transaction(),
        session.in_nested_transaction(),
        session.is_active,
    )


def _describe_connection(connection: Connection) -> Any:
    return (
        connection.closed,
        connection.invalidated,
        connection.in_transaction(),
        connection.in_nested_transaction(),
    )


def _listen(name: str) -> None:
    def forward(first: Any, *args: Any) -> None:
        session = first if isinstance(first, Session) else first.session
        session.player.session_event(name, session, *((first,) if first is not session else ()), *args)

    event.listen(WatchedSession, name, forward)


for _name in (
    "after_transaction_create",
    "after_transaction_end",
    "after_begin",
    "before_commit",
    "after_commit",
    "after_rollback",
    "after_soft_rollback",
    "before_flush",
    "after_flush",
    "after_flush_postexec",
    "after_bulk_update",
    "after_bulk_delete",
    "do_orm_execute",
):
    _listen(_name)


def _listen_to_objects(name: str) -> None:
    def forward(session: Any, known: Any) -> None:
        session.player.note(f"session {session.number} {name} {type(known).__name__} {inspect(known).identity}")

    event.listen(WatchedSession, name, forward)


for _name in (
    "transient_to_pending",
    "pending_to_transient",
    "pending_to_persistent",
    "persistent_to_transient",
    "persistent_to_deleted",
    "deleted_to_persistent",
    "deleted_to_detached",
    "detached_to_persistent",
    "persistent_to_detached",
    "loaded_as_persistent",
):
    _listen_to_objects(_name)
