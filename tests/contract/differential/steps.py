"""A step of a program is a value, a name with arguments; a deed is the function that carries it out.

So a program is plain data: it prints as a literal that can be run again, and shrinks by leaving steps out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from .arms import ASYNC, DRIVERS, POSTGRESQL

if TYPE_CHECKING:
    from .player import Player

Where = Literal["everywhere", "postgresql", "psycopg", "async"]

PLACES: dict[Where, tuple[str, ...]] = {
    "everywhere": DRIVERS,
    "postgresql": POSTGRESQL,
    "psycopg": ("psycopg", "psycopg_async"),
    "async": ASYNC,
}
"""psycopg alone: asyncpg remembers, a connection, what ``FETCH`` returned when there was no such cursor."""

SESSION = (0, 0, 0, 1)
CONNECTION = (0, 1)
BOOLEANS = (False, True)
INDEX = range(6)
KEY = range(1, 6)
NUMBER = range(10)
NAME = ("ada", "bob", "eve", "fay", "gil", "a name too long")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a deed."""

    name: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"step({', '.join((repr(self.name), *(f'{name}={value!r}' for name, value in self.arguments)))})"


def step(name: str, /, **arguments: Any) -> Step:
    """A step as programs print it."""
    return Step(name, tuple(arguments.items()))


Options = Sequence[Any] | Callable[[Random], Any]
"""What an argument is chosen from, or what makes one up."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What a step does, where it can be done and with which arguments."""

    name: str
    run: Callable[..., Any]
    family: str
    where: Where
    arguments: Mapping[str, Options]

    def suits(self, driver: str) -> bool:
        """Tell whether a driver can do it."""
        return driver in PLACES[self.where]

    def draw(self, random: Random) -> Step:
        """A step with arguments drawn evenly."""
        drawn = {
            name: options(random) if callable(options) else random.choice(options)
            for name, options in self.arguments.items()
        }
        return step(self.name, **drawn)


DEEDS: dict[str, Deed] = {}


def deed(
    family: str, where: Where = "everywhere", **arguments: Options
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function of a player a deed."""

    def enter(run: Callable[..., Any]) -> Callable[..., Any]:
        name = run.__name__
        assert name not in DEEDS
        DEEDS[name] = Deed(name, run, family, where, arguments)
        return run

    return enter


def deed_of(step: Step) -> Deed:
    """The deed that carries a step out."""
    return DEEDS[step.name]


def count_of(player: Player, session: int) -> int:
    """How many objects a session knows; what deeds return that have nothing else to tell."""
    return len(player.session(session).identity_map)
