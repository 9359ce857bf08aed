"""Which routes need the database: learned from the requests that were let in, told before routing. Pure.

A wrong guess is safe: what is let in meets the gate as ever, and now and then one is let in to be learned from.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

Segments = tuple[str | None, ...]
"""A path between its slashes; None where a parameter was."""

MOST_ROUTES: Final = 1000
"""More are forgotten, the one that was used longest ago first."""

MOST_PATTERNS: Final = 50
"""Of one method and length."""

ENOUGH: Final = 3
"""A route is known from that many requests on."""

NEEDS: Final = 0.9
"""A route needs the database if this share of its latest requests has asked for it."""

LEARN_EVERY: Final = 256
"""One of so many that are about to be turned away is let in, in case its route has changed its ways."""


class _Route:
    __slots__ = ("share", "times")

    def __init__(self) -> None:
        self.times = 0
        self.share = 0.0

    def note(self, *, asked: bool) -> None:
        self.times += 1
        self.share += (asked - self.share) / min(self.times, 16)

    @property
    def needs(self) -> bool:
        return self.times >= ENOUGH and self.share >= NEEDS


class RouteMemory:
    """What has been learned of an app's routes, by method and path."""

    def __init__(self) -> None:
        self._routes: OrderedDict[tuple[str, Segments], _Route] = OrderedDict()
        self._patterns: dict[tuple[str, int], dict[Segments, _Route]] = {}
        self._refusals = 0

    def note(self, method: str, path: str, parameters: Mapping[str, object], *, asked: bool) -> None:
        """Note whether a request has asked for a connection."""
        segments = _segments(path, parameters)
        if segments is None:
            return
        route = self._routes.get((method, segments))
        if route is None:
            # A path of its own that never asks need not be known, unless it looks like something that does.
            if not (asked or None in segments or self._fitting(method, segments)):
                return
            route = self._add(method, segments)
        else:
            self._routes.move_to_end((method, segments))
        route.note(asked=asked)

    def needs(self, method: str, path: str) -> bool:
        """Tell whether a request will ask for a connection; False where that is not known."""
        segments = tuple(path.split("/"))
        exact = self._routes.get((method, segments))
        if exact is not None:
            needed = exact.needs
        else:
            fitting = self._fitting(method, segments)
            needed = bool(fitting) and all(route.needs for route in fitting)
        if not needed:
            return False
        self._refusals += 1
        return self._refusals % LEARN_EVERY != 0

    def _fitting(self, method: str, segments: Segments) -> list[_Route]:
        patterns = self._patterns.get((method, len(segments)), {})
        return [route for pattern, route in patterns.items() if _fits(pattern, segments)]

    def _add(self, method: str, segments: Segments) -> _Route:
        route = self._routes[method, segments] = _Route()
        if None in segments:
            patterns = self._patterns.setdefault((method, len(segments)), {})
            patterns[segments] = route
            if len(patterns) > MOST_PATTERNS:  # all of them are looked at
                self._forget(method, next(iter(patterns)))
        if len(self._routes) > MOST_ROUTES:
            self._forget(*next(iter(self._routes)))
        return route

    def _forget(self, method: str, segments: Segments) -> None:
        del self._routes[method, segments]
        if None in segments:
            self._forget_pattern(method, segments)

    def _forget_pattern(self, method: str, segments: Segments) -> None:
        patterns = self._patterns.get((method, len(segments)), {})
        patterns.pop(segments, None)
        if not patterns:  # a client chooses its method, and must not fill the memory with them
            self._patterns.pop((method, len(segments)), None)


def _segments(path: str, parameters: Mapping[str, object]) -> Segments | None:
    """None where a parameter is not one of the path's segments as it stands there: nothing can be learned of that."""
    segments: list[str | None] = list(path.split("/"))
    for value in parameters.values():
        try:
            last = len(segments) - 1 - segments[::-1].index(str(value))
        except ValueError:
            return None
        segments[last] = None
    return tuple(segments)


def _fits(pattern: Segments, segments: Segments) -> bool:
    return all(part is None or part == segment for part, segment in zip(pattern, segments, strict=True))
