"""Deeds that begin and end: sessions, savepoints, context managers, isolation of one transaction, pins."""

from __future__ import annotations

from contextlib import AbstractContextManager
from random import Random
from typing import Any

from sqlalchemy import func, select, text

import headgate

from .models import Author
from .player import Player
from .steps import BOOLEANS, DEEDS, KEY, SESSION, Step, deed

POSTGRESQL_LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT")
SQLITE_LEVELS = ("SERIALIZABLE", "SERIALIZABLE", "SERIALIZABLE", "AUTOCOMMIT")
"""Without READ UNCOMMITTED: stock does not take it back when the connection goes to an AUTOCOMMIT engine's pool."""
LEVEL = range(4)


def level_of(player: Player, number: int) -> str:
    """An isolation level that the driver knows."""
    return (POSTGRESQL_LEVELS if player.arm.is_postgresql else SQLITE_LEVELS)[number]


@deed("end", session=SESSION)
def commit(player: Player, session: int) -> Any:
    player.session(session).commit()


@deed("end", session=SESSION)
def rollback(player: Player, session: int) -> Any:
    player.session(session).rollback()


@deed("end", session=SESSION)
def close(player: Player, session: int) -> Any:
    player.session(session).close()


@deed("rare end", session=SESSION)
def reset(player: Player, session: int) -> Any:
    player.session(session).reset()


@deed("rare end", session=SESSION)
def invalidate(player: Player, session: int) -> Any:
    player.session(session).invalidate()


@deed("rare end", "postgresql", session=SESSION)
def invalidate_backend(player: Player, session: int) -> Any:
    """Has the server process ended that a session was invalidated on, and does another one follow?"""
    known = player.session(session)
    before = known.scalar(text("SELECT pg_backend_pid()"))
    known.invalidate()
    return [before in player.arm.vanishing, known.scalar(text("SELECT pg_backend_pid()")) == before]


@deed("transaction", session=SESSION)
def begin(player: Player, session: int) -> Any:
    player.session(session).begin()


@deed("transaction", session=SESSION)
def begin_nested(player: Player, session: int) -> Any:
    player.savepoints[session].append(player.session(session).begin_nested())


@deed("transaction", session=SESSION)
def release_savepoint(player: Player, session: int) -> Any:
    if player.savepoints[session]:
        player.savepoints[session].pop().commit()


@deed("transaction", session=SESSION)
def roll_back_to_savepoint(player: Player, session: int) -> Any:
    if player.savepoints[session]:
        player.savepoints[session].pop().rollback()


@deed("transaction", session=SESSION)
def ask_for_connection(player: Player, session: int) -> Any:
    connection = player.session(session).connection()
    return [connection.in_transaction(), connection.scalar(text("SELECT count(*) FROM book"))]


@deed("transaction", session=SESSION, level=LEVEL)
def begin_isolated(player: Player, session: int, level: int) -> Any:
    """Isolation of one transaction of a session."""
    options = {"isolation_level": level_of(player, level)}
    return player.session(session).connection(execution_options=options).get_isolation_level()


@deed("transaction", session=SESSION)
def ask_for_isolation(player: Player, session: int) -> Any:
    return player.session(session).connection().get_isolation_level()


@deed("transaction", session=SESSION)
def pin(player: Player, session: int) -> Any:
    """What nobody may notice: the stock session has no such method, and needs none."""
    if player.arm.name == "leased":
        headgate.Session.pin(player.session(session))  # type: ignore[arg-type]
    else:
        assert player.session(session).connection().connection is not None


@deed("failing", session=SESSION)
def fail_in_commit(player: Player, session: int) -> Any:
    """A commit whose flush breaks a constraint."""
    player.session(session).add(Author(name="a name too long"))
    player.session(session).commit()


def draw_body(random: Random) -> tuple[Step, ...]:
    """One to three steps that begin and end nothing."""
    known = [one for one in DEEDS.values() if one.family in BODY_FAMILIES and one.where == "everywhere"]
    return tuple(random.choice(known).draw(random) for _ in range(random.randint(1, 3)))


BODY_FAMILIES = ("read", "change", "bulk", "object")
KINDS = ("begin", "begin_nested", "no_autoflush", "connection.begin_nested")


def _block(player: Player, session: int, kind: str) -> AbstractContextManager[Any]:
    known = player.session(session)
    if kind == "no_autoflush":
        return known.no_autoflush
    if kind == "connection.begin_nested":
        return known.connection().begin_nested()
    block: AbstractContextManager[Any] = getattr(known, kind)()
    return block


@deed("block", session=SESSION, kind=KINDS, body=draw_body, fails=BOOLEANS)
def within(player: Player, session: int, kind: str, body: tuple[Step, ...], fails: bool) -> Any:
    """Steps inside a context manager; the first that fails leaves it, as in a program."""
    done: list[Any] = []
    try:
        with _block(player, session, kind):
            done.extend(player.render(player.run(inner)) for inner in body)
            if fails:
                raise KeyError("out of the block")
    except Exception as error:
        done.append(player.render(error))
    return done


@deed("block", session=SESSION, outer=KINDS, inner=KINDS, body=draw_body, fails=BOOLEANS)
def within_two(player: Player, session: int, outer: str, inner: str, body: tuple[Step, ...], fails: bool) -> Any:
    """The same inside another one, which goes on when the inner one fails."""
    done: list[Any] = []
    try:
        with _block(player, session, outer):
            done.append(within(player, session, inner, body, fails))
            done.append(player.session(session).scalar(select(func.count()).select_from(Author)))
    except Exception as error:
        done.append(player.render(error))
    return done


@deed("block", key=KEY, fails=BOOLEANS)
def short_session(player: Player, key: int, fails: bool) -> Any:
    """A session of its own that commits at the end of ``begin()``."""
    done: list[Any] = []
    try:
        with player.open_another() as session, session.begin():
            done.append(session.get(Author, key))
            session.add(Author(name=f"short {key}"))
            if fails:
                raise KeyError("out of the session")
    except Exception as error:
        done.append(player.render(error))
    return done
