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
"""More are forgotten, the one seen first first."""

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
        route = self._routes.get((method, segments))
        if route is None:
            route = self._add(method, segments)
        route.note(asked=asked)

    def needs(self, method: str, path: str) -> bool:
        """Tell whether a request will ask for a connection; False where that is not known."""
        segments = tuple(path.split("/"))
        exact = self._routes.get((method, segments))
        if exact is not None:
            needed = exact.needs
        else:
            patterns = self._patterns.get((method, len(segments)), {})
            fitting = [route.needs for pattern, route in patterns.items() if _fits(pattern, segments)]
            needed = bool(fitting) and all(fitting)
        if not needed:
            return False
        self._refusals += 1
        return self._refusals % LEARN_EVERY != 0

    def _add(self, method: str, segments: Segments) -> _Route:
        if len(self._routes) >= MOST_ROUTES:
            (old_method, old), _ = self._routes.popitem(last=False)
            self._forget_pattern(old_method, old)
        route = self._routes[method, segments] = _Route()
        if None in segments:
            self._patterns.setdefault((method, len(segments)), {})[segments] = route
        return route

    def _forget_pattern(self, method: str, segments: Segments) -> None:
        patterns = self._patterns.get((method, len(segments)), {})
        patterns.pop(segments, None)
        if not patterns:  # a client chooses its method, and must not fill the memory with them
            self._patterns.pop((method, len(segments)), None)


def _segments(path: str, parameters: Mapping[str, object]) -> Segments:
    if not parameters:
        return tuple(path.split("/"))
    values = {str(value) for value in parameters.values()}
    return tuple(None if segment in values else segment for segment in path.split("/"))


def _fits(pattern: Segments, segments: Segments) -> bool:
    return all(part is None or part == segment for part, segment in zip(pattern, segments, strict=True))
