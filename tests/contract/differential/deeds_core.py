"""Deeds of Core: connections that commit as they go or in blocks, exec_driver_sql, escapes to the driver, engines."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, text, update

from .deeds_transactions import LEVEL, level_of
from .models import Audit, Author, Book, Tag
from .player import Player
from .steps import BOOLEANS, CONNECTION, KEY, NAME, NUMBER, deed

BACKEND = text("SELECT pg_backend_pid()")


@deed("core", connection=CONNECTION)
def core_select(player: Player, connection: int) -> Any:
    return player.connection(connection).execute(select(Author.__table__).order_by(Author.id)).all()


@deed("core", connection=CONNECTION)
def core_select_mappings(player: Player, connection: int) -> Any:
    result = player.connection(connection).execute(select(Book.id, Book.title).order_by(Book.id))
    return [dict(row) for row in result.mappings()], result.keys()


@deed("core", connection=CONNECTION)
def core_scalar_text(player: Player, connection: int) -> Any:
    return player.connection(connection).scalar(text("SELECT max(pages) FROM book WHERE id IN (1, 2, 3)"))


@deed("core", connection=CONNECTION, keys=((), (1,), (2, 9), (3, 1, 2)))
def core_expanding(player: Player, connection: int, keys: tuple[int, ...]) -> Any:
    query = select(Author.name).where(Author.id.in_(bindparam("keys", expanding=True))).order_by(Author.id)
    return player.connection(connection).execute(query, {"keys": keys}).all()


@deed("core", connection=CONNECTION, name=NAME)
def core_insert(player: Player, connection: int, name: str) -> Any:
    result = player.connection(connection).execute(insert(Author.__table__), {"name": name, "mood": "calm", "bio": ""})
    return result.inserted_primary_key


@deed("core", connection=CONNECTION, name=NAME, number=NUMBER)
def core_executemany(player: Player, connection: int, name: str, number: int) -> Any:
    rows = [{"note": f"{name} {index}"} for index in range(number % 4 + 2)]
    return player.connection(connection).execute(insert(Audit.__table__), rows).rowcount


@deed("core", connection=CONNECTION, name=NAME)
def core_insert_returning(player: Player, connection: int, name: str) -> Any:
    query = insert(Tag.__table__).returning(Tag.id, Tag.label)
    return player.connection(connection).execute(query, {"label": name}).all()


@deed("core", connection=CONNECTION, key=KEY, pages=(7, -7))
def core_update_returning(player: Player, connection: int, key: int, pages: int) -> Any:
    query = update(Book.__table__).where(Book.id == key).values(pages=pages).returning(Book.id, Book.pages)
    return player.connection(connection).execute(query).all()


@deed("core", connection=CONNECTION, key=KEY)
def core_delete(player: Player, connection: int, key: int) -> Any:
    return player.connection(connection).execute(delete(Book.__table__).where(Book.id == key)).rowcount


@deed("core", connection=CONNECTION, many=BOOLEANS)
def core_driver_sql(player: Player, connection: int, many: bool) -> Any:
    known = player.connection(connection)
    if many:
        mark = {"asyncpg": "$1", "pysqlite": "?", "aiosqlite": "?"}.get(player.arm.driver, "%s")
        return known.exec_driver_sql(f"INSERT INTO audit (note) VALUES ({mark})", [("a",), ("b",)]).rowcount
    return known.exec_driver_sql("SELECT id, label FROM tag ORDER BY id").all()


@deed("core", connection=CONNECTION, size=(1, 2))
def core_stream(player: Player, connection: int, size: int) -> Any:
    query = select(Book.title).order_by(Book.id).execution_options(yield_per=size)
    with player.connection(connection).execute(query) as result:
        return [result.fetchone(), result.fetchmany(2)]


@deed("core", connection=CONNECTION)
def core_fail(player: Player, connection: int) -> Any:
    return player.connection(connection).scalar(text("SELECT missing"))


@deed("core", connection=CONNECTION)
def core_break_constraint(player: Player, connection: int) -> Any:
    return player.connection(connection).execute(text("UPDATE book SET pages = pages - 100")).rowcount


@deed("core end", connection=CONNECTION)
def core_commit(player: Player, connection: int) -> Any:
    player.connection(connection).commit()


@deed("core end", connection=CONNECTION)
def core_rollback(player: Player, connection: int) -> Any:
    player.connection(connection).rollback()


@deed("core end", connection=CONNECTION)
def core_close(player: Player, connection: int) -> Any:
    player.connection(connection).close()


@deed("before", outer=("nothing begun", "transaction begun", "savepoint begun"))
def begin_outside(player: Player, outer: str) -> Any:
    """What is open on a connection when the first session joins it; part of the setting."""
    if outer != "nothing begun":
        player.transactions[0].append(player.connection(0).begin())
    if outer == "savepoint begun":
        player.transactions[0].append(player.connection(0).begin_nested())


@deed("core transaction", connection=CONNECTION)
def core_begin(player: Player, connection: int) -> Any:
    known = player.connection(connection)
    player.transactions[connection].append(known.begin())


@deed("core transaction", connection=CONNECTION)
def core_begin_nested(player: Player, connection: int) -> Any:
    known = player.connection(connection)
    player.transactions[connection].append(known.begin_nested())


@deed("core transaction", connection=CONNECTION, how=("commit", "rollback", "close"))
def core_end_transaction(player: Player, connection: int, how: str) -> Any:
    if player.transactions[connection]:
        getattr(player.transactions[connection].pop(), how)()


@deed("core transaction", connection=CONNECTION, level=LEVEL)
def core_isolate(player: Player, connection: int, level: int) -> Any:
    known = player.connection(connection)
    known.execution_options(isolation_level=level_of(player, level))
    return [known.get_isolation_level(), known.scalar(text("SELECT count(*) FROM tag"))]


@deed("core transaction", connection=CONNECTION)
def core_ask_for_isolation(player: Player, connection: int) -> Any:
    known = player.connection(connection)
    return [known.get_isolation_level(), known.default_isolation_level]


@deed("core block", name=NAME, fails=BOOLEANS)
def engine_begin(player: Player, name: str, fails: bool) -> Any:
    with player.engine().begin() as connection:
        connection.execute(insert(Tag.__table__), {"label": name})
        found = connection.execute(select(Tag.label).order_by(Tag.id)).all()
        if fails:
            raise KeyError("out of the block")
        return found


@deed("core block", connection=CONNECTION, name=NAME, fails=BOOLEANS)
def core_savepoint_block(player: Player, connection: int, name: str, fails: bool) -> Any:
    known = player.connection(connection)
    with known.begin_nested():
        known.execute(insert(Tag.__table__), {"label": name})
        if fails:
            raise KeyError("out of the block")
    return known.scalar(select(func.count()).select_from(Tag.__table__))


# escapes


@deed("escape", connection=CONNECTION, ends=BOOLEANS)
def raw_cursor(player: Player, connection: int, ends: bool) -> Any:
    """Write past SQLAlchemy, on the cursor of its own connection."""
    known = player.connection(connection)
    cursor = known.connection.cursor()
    cursor.execute("INSERT INTO audit (note) VALUES ('raw')")
    cursor.close()
    if ends:
        known.connection.commit()
    return known.scalar(text("SELECT count(*) FROM audit"))


@deed("escape", connection=CONNECTION)
def dbapi_cursor(player: Player, connection: int) -> Any:
    """Write past the pool, on the driver's connection."""
    known = player.connection(connection)
    cursor = known.connection.dbapi_connection.cursor()  # type: ignore[union-attr]
    cursor.execute("INSERT INTO audit (note) VALUES ('past the pool')")
    cursor.close()
    return known.scalar(text("SELECT count(*) FROM audit"))


@deed("escape", end=("commit", "rollback", "close"))
def raw_connection(player: Player, end: str) -> Any:
    """The DBAPI as it is, one cursor for two statements; ``close`` leaves it to the pool to roll back."""
    raw = player.engine().raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("SELECT count(*) FROM author")
        found = cursor.fetchone()
        cursor.execute("INSERT INTO audit (note) VALUES ('raw connection')")
        cursor.close()
        if end != "close":
            getattr(raw, end)()
    finally:
        raw.close()
    return tuple(found or ())


@deed("rare", connection=CONNECTION)
def core_invalidate(player: Player, connection: int) -> Any:
    player.connection(connection).invalidate()


@deed("rare", "postgresql", connection=CONNECTION, writes=BOOLEANS)
def core_invalidate_backend(player: Player, connection: int, writes: bool) -> Any:
    """Which server process: one as long as the transaction writes; what is invalidated ends, another one follows."""
    known = player.connection(connection)
    if writes:
        known.execute(insert(Audit.__table__), {"note": "invalidated"})
    before, still = (known.scalar(BACKEND) for _ in range(2))
    known.invalidate()
    has_ended = before in player.arm.vanishing
    known.rollback()
    return [before == still, has_ended, known.scalar(BACKEND) == before]


@deed("rare", connection=CONNECTION, commits=BOOLEANS)
def core_detach(player: Player, connection: int, commits: bool) -> Any:
    """To its end in one step: stock does not close a detached connection that is invalidated."""
    known = player.connection(connection)
    try:
        known.detach()
        known.execute(insert(Audit.__table__), {"note": "detached"})
        if commits:
            known.commit()
        return known.scalar(text("SELECT count(*) FROM audit"))
    finally:
        known.close()


@deed("rare")
def dispose(player: Player) -> Any:
    player.engine().dispose()


# PostgreSQL's state of a transaction and of a connection


@deed("state", "postgresql", connection=CONNECTION, value=("red", "blue"))
def set_local(player: Player, connection: int, value: str) -> Any:
    player.connection(connection).execute(text(f"SET LOCAL app.tenant = '{value}'"))
    return read_setting(player, connection)


@deed("state", "postgresql", connection=CONNECTION)
def set_by_function(player: Player, connection: int) -> Any:
    player.connection(connection).execute(select(func.set_config("app.tenant", "local", True)))
    return read_setting(player, connection)


@deed("state", "postgresql", connection=CONNECTION, commits=BOOLEANS)
def set_and_reset(player: Player, connection: int, commits: bool) -> Any:
    """A setting of the connection outlives a commit, but not the step: no other program may see it."""
    known = player.connection(connection)
    known.execute(text("SET app.tenant = 'kept'"))
    seen = [known.scalar(text("SELECT current_setting('app.tenant', true)"))]
    if commits and not known.in_nested_transaction():
        known.commit()
        seen.append(known.scalar(text("SELECT current_setting('app.tenant', true)")))
    known.execute(text("RESET app.tenant"))
    if commits and not known.in_nested_transaction():
        known.commit()
    return seen


@deed("state", "postgresql", connection=CONNECTION)
def read_setting(player: Player, connection: int) -> Any:
    query = text("SELECT coalesce(current_setting('app.tenant', true), '')")
    return player.connection(connection).scalar(query)


@deed("state", "postgresql", connection=CONNECTION)
def use_temporary_table(player: Player, connection: int) -> Any:
    known = player.connection(connection)
    known.execute(text("CREATE TEMPORARY TABLE IF NOT EXISTS scratch (n int) ON COMMIT DROP"))
    known.execute(text("INSERT INTO scratch VALUES (1)"))
    return known.scalar(text("SELECT count(*) FROM scratch"))


@deed("state", "postgresql", connection=CONNECTION)
def read_temporary_table(player: Player, connection: int) -> Any:
    return player.connection(connection).scalar(text("SELECT count(*) FROM scratch"))


@deed("state", "postgresql", connection=CONNECTION, shared=BOOLEANS)
def lock_advisory(player: Player, connection: int, shared: bool) -> Any:
    name = "pg_try_advisory_xact_lock_shared" if shared else "pg_try_advisory_xact_lock"
    query = text(f"SELECT {name}(hashtext(current_schema()), 1)")
    return player.connection(connection).scalar(query)


@deed("state", "postgresql", connection=CONNECTION, name=NAME)
def read_last_value(player: Player, connection: int, name: str) -> Any:
    known = player.connection(connection)
    known.execute(insert(Tag.__table__), {"label": name})
    return known.scalar(text("SELECT lastval()"))


@deed("state", "psycopg", connection=CONNECTION)
def declare_cursor(player: Player, connection: int) -> Any:
    known = player.connection(connection)
    known.execute(text("DECLARE mine CURSOR FOR SELECT title FROM book ORDER BY id"))
    return [known.scalar(text("FETCH NEXT FROM mine")), known.scalar(text("FETCH NEXT FROM mine"))]


@deed("state", "psycopg", connection=CONNECTION)
def read_on_cursor(player: Player, connection: int) -> Any:
    return player.connection(connection).scalar(text("FETCH NEXT FROM mine"))


@deed("state", "postgresql", connection=CONNECTION)
def change_in_block(player: Player, connection: int) -> Any:
    player.connection(connection).execute(text("DO $$ BEGIN PERFORM note_it('done'); END $$"))
