"""What holds for a whole program: how its first session is bound, its options, isolation and listeners."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import cache
from random import Random
from typing import Literal

from .arms import POSTGRESQL, Isolation, Source

Binding = Literal[
    "engine",
    "several binds",
    "conditional_savepoint",
    "rollback_only",
    "control_fully",
    "create_savepoint",
]
"""To an engine, to two, or to a ``Connection`` in one of SQLAlchemy's ``join_transaction_mode``."""

Outer = Literal["nothing begun", "transaction begun", "savepoint begun"]
"""What is open on that connection when the session joins it."""

JOIN_MODES: tuple[Binding, ...] = ("conditional_savepoint", "rollback_only", "control_fully", "create_savepoint")

BINDINGS: tuple[Binding, ...] = (*["engine"] * 5, "several binds", *JOIN_MODES)
ENGINE_SOURCES: tuple[Source, ...] = ("create_engine", "engine option")

ONE_SNAPSHOT = ("REPEATABLE READ", "SERIALIZABLE")
"""The levels of PostgreSQL whose transactions need one connection from their first statement on."""

LISTENERS = (
    "after_begin tenant",
    "after_begin set_config",
    "begin tenant",
    "before_flush read",
    "before_flush write",
    "before_commit write",
    "orm criteria",
    "orm read",
)


NOWHERE = Isolation()


@dataclass(frozen=True, slots=True)
class Setting:
    """The circumstances of one program; the second session is always bound to the engine."""

    binding: Binding = "engine"
    outer: Outer = "nothing begun"
    isolation: Isolation = NOWHERE
    autoflush: bool = True
    expire_on_commit: bool = True
    close_resets_only: bool = True
    listeners: tuple[str, ...] = ()

    def unusual(self) -> list[str]:
        """The names of what is not the default."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    def only(self, names: Collection[str]) -> Setting:
        """This setting with the default for everything but these names."""
        return Setting(**{name: getattr(self, name) for name in names})

    def literal(self) -> str:
        """Python for this setting."""
        return f"Setting({', '.join(f'{name}={getattr(self, name)!r}' for name in self.unusual())})"


@cache
def isolations(driver: str) -> tuple[Isolation, ...]:
    """From every source that belongs to an engine."""
    if driver in POSTGRESQL:
        levels = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
        sources: tuple[Source, ...] = ("role", "listener", "create_engine", "engine option")
        known = [Isolation(source, level) for source in sources for level in levels]
    else:
        known = [Isolation("listener", "the begin recipe")]
        known += [
            Isolation(source, level) for source in ENGINE_SOURCES for level in ("SERIALIZABLE", "READ UNCOMMITTED")
        ]
    return (*known, *(Isolation(source, "AUTOCOMMIT") for source in ENGINE_SOURCES))


def draw_setting(driver: str, random: Random) -> Setting:
    """A setting that this driver knows."""
    return Setting(
        binding=random.choice(BINDINGS),
        outer=random.choice(("nothing begun", "transaction begun", "savepoint begun")),
        isolation=random.choice(isolations(driver)) if random.random() < 0.4 else NOWHERE,
        autoflush=random.random() < 0.7,
        expire_on_commit=random.random() < 0.5,
        close_resets_only=random.random() < 0.7,
        listeners=tuple(random.sample(LISTENERS, random.choice((0, 0, 1, 2)))),
    )
