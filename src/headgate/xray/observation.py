"""What the X-ray has seen of a service, as plain values: what ``explain`` explains, and what is stored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast, get_args, get_origin, get_type_hints

from headgate.errors import XrayError

FORMAT = "headgate-xray"
VERSION = 1
"""1: first form. Raise it with every change of a field or its meaning."""


class Site(NamedTuple):
    """A line of code: its file, the line's number, the function's qualified name, and what is written there."""

    file: str
    line: int
    function: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "?"


NOWHERE = Site("", 0, "")

BEAT_NS = 20_000_000
"""Between two beats of a watched event loop, and between two looks at what it does."""

RUNS = "its own code"
"""What a holder «awaits» that runs."""

THE_DATABASE = "the database"
"""What is awaited between two statements while rows are fetched, or the connection is asked whether it lives."""

A_THREAD = "a worker thread"


@dataclass(frozen=True, slots=True)
class Awaited:
    """What holders waited for at one line while no statement ran on their connection.

    :ivar what: the awaited function's name, or one of ``RUNS`` and ``A_THREAD``.
    :ivar share: of the time these connections were held idle, 0 to 1.
    """

    site: Site
    what: str
    share: float


@dataclass(frozen=True, slots=True)
class HoldSum:
    """All holds of one route that began at one line.

    :ivar held_ns: over all of them; ``busy_ns`` of it statements ran.
    :ivar after_answer_ns: of it, after the response was complete; ``sending_ns``: while it was on its way.
    """

    pool: str
    site: Site
    count: int
    held_ns: int
    busy_ns: int
    after_answer_ns: int
    awaited: tuple[Awaited, ...] = ()
    sending_ns: int = 0


@dataclass(frozen=True, slots=True)
class StatementSum:
    """All executions of one statement from one line.

    :ivar requests: in how many requests it ran at all; ``most``: the most often in a single one.
    :ivar cause: the mapped attribute whose loading sent it, ``Order.items``; '' if there is none.
    :ivar loads: what that is: ``collection``, ``reference``, ``deferred`` or ``expired``.
    """

    text: str
    site: Site
    count: int
    requests: int
    most: int
    time_ns: int
    cause: str = ""
    loads: str = ""


Mark = tuple[int, int, int]
"""A phase by its number, from when until when, in nanoseconds since the request came."""


@dataclass(frozen=True, slots=True)
class RequestSample:
    """One request, instant by instant.

    :ivar is_slow: one of the slowest; else one of those that are spread evenly over all.
    :ivar came_ns: after the watch began.
    :ivar times_ns: by phase, until the answer; their sum is ``total_ns``.
    :ivar marks: of a request that did very much, those of its beginning.
    """

    is_slow: bool
    came_ns: int
    total_ns: int
    status: int
    times_ns: tuple[int, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class RouteSum:
    """All requests of one route.

    :ivar times_ns: by phase, until the answer; their sum is the time of all requests together.
    :ivar statuses: how many answers had each status; 0 for none.
    :ivar latencies_ns: sorted; of a sample, if there were many.
    :ivar thread_runs: how often it asked for a worker thread, with the sums of waiting and running.
    :ivar holders: how many requests held a connection, by pool.
    :ivar twice: requests that acquired a connection while they held one of the same pool; ``second``: where they did.
    :ivar unfinished: requests that had not ended; they are added up as far as they had come.
    """

    route: str
    count: int
    times_ns: tuple[int, ...]
    statuses: dict[str, int]
    latencies_ns: tuple[int, ...]
    thread_runs: int
    thread_wait_ns: int
    thread_run_ns: int
    holds: tuple[HoldSum, ...] = ()
    statements: tuple[StatementSum, ...] = ()
    holders: dict[str, int] = field(default_factory=dict)
    twice: int = 0
    second: Site = NOWHERE
    unfinished: int = 0
    samples: tuple[RequestSample, ...] = ()


@dataclass(frozen=True, slots=True)
class Stall:
    """The event loop stood still.

    :ivar verdict: ``code``, ``collection``, ``import``, ``thread`` (it waited for one, or for a lock), ``contended``
        (the other threads kept the interpreter), ``descheduled``, ``suspended``.
    :ivar route: whose code it was, if that is known.
    :ivar victims: how many other requests waited meanwhile, or came and could not be read.
    """

    verdict: str
    site: Site
    what: str
    count: int
    total_ns: int
    longest_ns: int
    victims: int
    route: str = ""


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """A pool of connections.

    :ivar kind: the pool's class; ``limit`` is None where it sets none.
    :ivar opened: physical connections opened while it was watched.
    :ivar refused: the server's words, if it refused to connect for lack of connections; ``refusals``: how often.
    :ivar held_ns: over all its connections, from the first that was acquired to the last that was given back.
    :ivar most: the most that were held at one time.
    """

    name: str
    kind: str
    limit: int | None
    timeouts: int = 0
    opened: int = 0
    refused: str = ""
    refusals: int = 0
    held_ns: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """The service's process.

    :ivar wall_ns: from the first request to the last thing that was begun: whoever waits for slow answers afterwards
        leaves the service idle.
    :ivar loop_cpu_ns: of the thread that runs the event loop; ``blocked_ns``: how long that thread was kept in a call
        that used no CPU.
    :ivar late_ns: by how much its beats were late, all of them together; it should beat every ``BEAT_NS``.
    :ivar kept_waiting_ns: how long that thread was ready to run, and the machine busy with something else.
    """

    cores: int
    threads: int
    wall_ns: int
    cpu_ns: int
    loop_cpu_ns: int
    max_connections: int | None = None
    workers: int = 1
    blocked_ns: int = 0
    late_ns: int = 0
    kept_waiting_ns: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client asked of one path, and what it got.

    :ivar latency_ns: median of the answered, from when they were due.
    :ivar connections: the most it would open; None without a limit.
    """

    label: str
    route: str
    sent: int
    answered: int
    failed: dict[str, int]
    rate: float
    throughput: float
    latency_ns: int
    connections: int | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything about one stretch of time."""

    process: ProcessFacts
    routes: tuple[RouteSum, ...] = ()
    pools: tuple[PoolFacts, ...] = ()
    stalls: tuple[Stall, ...] = ()
    offers: tuple[Offer, ...] = ()
    leaks: tuple[HoldSum, ...] = ()
    paths: dict[str, str] = field(default_factory=dict)
    """The route that a method and path led to."""
    notes: tuple[str, ...] = field(default=())
    """What could not be watched, and why."""
    about: dict[str, str] = field(default_factory=dict)
    """What was X-rayed, when and with what, in the words it is shown with."""


def with_text(value: Any, text_of: Callable[[str, int], str]) -> Any:
    """The same, with what is written at each of its sites."""
    if isinstance(value, Site):
        return value._replace(text=text_of(value.file, value.line).strip()) if value.file else value
    if isinstance(value, tuple):
        return tuple(with_text(item, text_of) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)]
        return dataclasses.replace(value, **{name: with_text(getattr(value, name), text_of) for name in names})
    return value


def encode(observation: Observation) -> str:
    """As one JSON object."""
    return json.dumps({"format": FORMAT, "version": VERSION, **dataclasses.asdict(observation)}, ensure_ascii=False)


def decode(text: str) -> Observation:
    """Read what ``encode`` wrote.

    :raises XrayError: it is not of this format and version.
    """
    try:
        value = json.loads(text)
        if (value.pop("format"), value.pop("version")) != (FORMAT, VERSION):
            raise XrayError(f"this was not written by this version of Headgate; it reads {FORMAT} version {VERSION}")
        return cast("Observation", _read(Observation, value))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise XrayError(
            f"this is no recorded X-ray ({type(error).__name__}); make it with headgate xray --record"
        ) from None


def _read(kind: Any, value: Any) -> Any:
    """A value of JSON as what an annotation says it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    if kind is Site:
        return Site(*value)
    if origin is tuple:
        return tuple(_read(arguments[0], item) for item in value)
    return value
