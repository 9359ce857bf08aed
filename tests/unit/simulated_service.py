"""A service in simulated time over the real waiting rules: requests come, wait, hold a connection and are answered."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

from headgate.overload import smooth
from headgate.queueing import Rank, WaitingLine

MS = 1_000_000
SECOND = 1_000_000_000

Rate = Callable[[float], float]
"""Requests a second, at so many seconds after the start."""


@dataclass(frozen=True, slots=True)
class Service:
    """What the service is made of.

    :ivar hold_ns: how long a lease holds its connection; its mean if ``is_exponential``.
    :ivar pause_ns: how long a request does without one between two leases.
    :ivar routing_ns: what lies between the early refusal and the first lease.
    :ivar slowness: what the hold is multiplied by, at so many seconds after the start.
    """

    connections: int = 15
    hold_ns: int = 50 * MS
    leases: int = 1
    pause_ns: int = 50 * MS
    routing_ns: int = 3 * MS
    is_exponential: bool = False
    refuses_early: bool = True
    max_wait_ns: int = 500 * MS
    slowness: Callable[[float], float] = lambda at_s: 1.0
    make_line: type[WaitingLine[Any]] = WaitingLine

    @property
    def capacity(self) -> float:
        """Requests a second that it can answer."""
        return self.connections * SECOND / self.hold_ns / self.leases

    @property
    def unloaded_ns(self) -> int:
        """How long a request takes that waits for nobody."""
        return self.routing_ns + self.leases * self.hold_ns + (self.leases - 1) * self.pause_ns


@dataclass(slots=True, eq=False)
class Request:
    """One request; ``reason`` is why it was refused."""

    came_ns: int
    leases_left: int
    has_begun: bool = False
    lease_began_ns: int = 0
    ended_ns: int | None = None
    reason: str | None = None

    @property
    def took_ns(self) -> int:
        """From its arrival to its answer."""
        assert self.ended_ns is not None, "every request is answered or refused"
        return self.ended_ns - self.came_ns


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests."""

    requests: list[Request]
    most_waiting: int
    turns_of_overload: int

    def between(self, from_s: float, to_s: float) -> Outcome:
        """That of those which came in that time."""
        chosen = [one for one in self.requests if from_s * SECOND <= one.came_ns < to_s * SECOND]
        return Outcome(chosen, self.most_waiting, self.turns_of_overload)

    @property
    def answered(self) -> list[Request]:
        return [request for request in self.requests if request.reason is None]

    @property
    def refused(self) -> list[Request]:
        return [request for request in self.requests if request.reason is not None]

    @property
    def reasons(self) -> Counter[str]:
        return Counter(request.reason for request in self.requests if request.reason is not None)

    def goodput(self, from_s: float, to_s: float, within_ns: int = SECOND) -> float:
        """Answers a second that are given in that time, to requests that came at most so long before."""
        good = sum(
            from_s * SECOND <= one.came_ns + one.took_ns < to_s * SECOND and one.took_ns <= within_ns
            for one in self.answered
        )
        return good / (to_s - from_s)


def quantile_ms(requests: list[Request], share: float) -> float:
    """How long that share of them took at most, in milliseconds."""
    took = sorted(request.took_ns for request in requests)
    return took[min(len(took) - 1, int(len(took) * share))] / MS


def poisson(rate: Rate, until_s: float, seed: int = 1) -> Iterator[int]:
    """Times of arrival at a rate that changes slowly against its inverse."""
    chance = random.Random(seed)
    at_s = chance.expovariate(rate(0.0))
    while at_s < until_s:
        yield round(at_s * SECOND)
        at_s += chance.expovariate(rate(at_s))


def evenly(rate: Rate, until_s: float) -> Iterator[int]:
    """Times of arrival without chance."""
    at_s = 0.0
    while at_s < until_s:
        yield round(at_s * SECOND)
        at_s += 1 / rate(at_s)


class Simulation:
    """Runs one service over given arrivals; time passes from event to event."""

    def __init__(self, service: Service, *, seed: int = 1) -> None:
        self.service = service
        self.line: WaitingLine[Request] = service.make_line(
            connections=service.connections, max_pending=1000, max_wait_ns=service.max_wait_ns
        )
        self._chance = random.Random(seed)
        self._events: list[tuple[int, int, Callable[[Request], None], Request]] = []
        self._number = count()
        self._now_ns = 0
        self._free = service.connections
        self._expected = 0
        self._mean_use_ns = 0.0
        self._most_waiting = self._turns = 0

    def run(self, arrivals: Iterator[int]) -> Outcome:
        """Let them come, and go on until everybody has been answered or refused."""
        requests = [Request(at_ns, self.service.leases) for at_ns in arrivals]
        self._events = [(request.came_ns, next(self._number), self._arrive, request) for request in requests]
        was_overloaded = False
        while self._events:
            self._now_ns, _, happen, request = heappop(self._events)
            happen(request)
            self._most_waiting = max(self._most_waiting, len(self.line))
            is_overloaded = self.line.overload.is_overloaded(self._now_ns)
            self._turns += is_overloaded and not was_overloaded
            was_overloaded = is_overloaded
        assert len(self.line) == 0, "nobody is left waiting"
        assert self._free == self.service.connections, "every connection has come back"
        return Outcome(requests, self._most_waiting, self._turns)

    def _plan(self, in_ns: int, happen: Callable[[Request], None], request: Request) -> None:
        heappush(self._events, (self._now_ns + in_ns, next(self._number), happen, request))

    def _arrive(self, request: Request) -> None:
        would_refuse = self.line.would_refuse(self._now_ns, expected=self._expected, use_ns=self._mean_use_ns)
        if self.service.refuses_early and would_refuse:
            self.line.overload.count_newcomer(refused=True)
            self._end(request, "early")
            return
        self._expected += 1
        self._plan(self.service.routing_ns, self._ask, request)

    def _ask(self, request: Request) -> None:
        self._expected -= not request.has_begun
        if self._free and not self.line:
            self._free -= 1
            self._hold(request)
            return
        rank = Rank.UNDER_WAY if request.has_begun else Rank.NORMAL
        joined = self.line.join(request, "async", self._now_ns, rank=rank, use_ns=self._mean_use_ns)
        if isinstance(joined, str):
            self._end(request, joined)
            return
        if joined.evicted is not None:
            self._end(joined.evicted, "evicted")
        if joined.deadline_ns is not None:
            self._plan(joined.deadline_ns - self._now_ns, self._give_up, request)

    def _give_up(self, request: Request) -> None:
        if not request.has_begun and self.line.leave(request, self._now_ns):
            self.line.overload.count_drop()
            self._end(request, "deadline")

    def _hold(self, request: Request) -> None:
        request.has_begun = True
        request.lease_began_ns = self._now_ns
        mean_ns = self.service.hold_ns * self.service.slowness(self._now_ns / SECOND)
        hold_ns = self._chance.expovariate(1 / mean_ns) if self.service.is_exponential else mean_ns
        self._plan(round(hold_ns), self._give_back, request)

    def _give_back(self, request: Request) -> None:
        self._mean_use_ns = smooth(self._mean_use_ns, self._now_ns - request.lease_began_ns)
        request.leases_left -= 1
        if request.leases_left:
            self._plan(self.service.pause_ns, self._ask, request)
        else:
            self._end(request, None)
        if self.line:
            self._hold(self.line.next("async", self._now_ns)[0])
        else:
            self._free += 1

    def _end(self, request: Request, reason: str | None) -> None:
        request.ended_ns, request.reason = self._now_ns, reason


def simulate(service: Service, rate: Rate, seconds: float, *, seed: int = 1) -> Outcome:
    """A service under Poisson arrivals."""
    return Simulation(service, seed=seed).run(poisson(rate, seconds, seed))
