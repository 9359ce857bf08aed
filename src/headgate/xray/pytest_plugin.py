"""What the pytest plugin does once a test has asked for it; ``headgate_xray`` is the part that is always there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from headgate.xray.allowing import parse_allowed
from headgate.xray.checking import Check, Options
from headgate.xray.findings import KINDS, Kind
from headgate.xray.stalls import STALL_NS

NAME: Final = "headgate_xray"
OFF: Final = "off"
TITLE: Final = "headgate X-ray"

_OPTIONS: Final = pytest.StashKey[Options]()
_SETTINGS: Final = ("stall_ms", "repeats", "allow")

Wrapper = Generator[None, Any, Any]


class Watching:
    """Watches, one after the other, the tests that are to be.

    :param items: those that ask for it.
    :param asks_for_fixture: tells whether a test does so by the fixture.
    :raises pytest.UsageError: an option cannot be what it is.
    """

    def __init__(
        self, config: pytest.Config, items: Iterable[pytest.Item], asks_for_fixture: Callable[[pytest.Item], bool]
    ) -> None:
        self.check: Check | None = None
        self._has_failed = False
        for item in items:
            options = _options_of(config, item, asks_for_fixture)
            if options is not None:
                item.stash[_OPTIONS] = options

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Wrapper:
        """Watch from before the first fixture until after the last."""
        __tracebackhide__ = True
        options = item.stash.get(_OPTIONS, None)
        if options is None:
            return (yield)
        self.check = check = Check(options, str(item.path))
        self._has_failed = False
        try:
            check.open()
            return (yield)
        finally:
            self.check = None
            check.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Wrapper:
        """What a fixture of a wider scope acquires is given back after other tests."""
        if self.check is None or fixturedef.scope == "function":
            return (yield)
        with self.check.sparing():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Wrapper:
        """Fail with what was found, if the test itself does not."""
        __tracebackhide__ = True
        if self.check is None:
            return (yield)
        with _wrapped(item, self.check):
            result = yield
        self._fail(self.check)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Wrapper:
        """See what was not given back. The test's report is out: what is found now is an error of its teardown."""
        result = yield
        if self.check is not None:
            self.check.look_for_leaks()
            if not self._has_failed:
                self._fail(self.check)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Wrapper:
        """Beside a failure of its own, a test tells what was found."""
        report = yield
        if self.check is not None:
            self._has_failed = self._has_failed or call.excinfo is not None
            text = self.check.take_untold() if self._has_failed else ""
            if text:
                report.sections.append((f"{TITLE} {call.when}", text))
        return report

    def _fail(self, check: Check) -> None:
        text = check.take_untold()
        if text:
            pytest.fail(text, pytrace=False)


@contextmanager
def _wrapped(item: pytest.Item, check: Check) -> Iterator[None]:
    """Have a test's function wrapped where whoever runs it looks for it."""
    if not isinstance(item, pytest.Function):
        yield
        return
    is_hypothesis = hasattr(item.obj, "hypothesis")
    owner, name = (item.obj.hypothesis, "inner_test") if is_hypothesis else (item, "obj")
    original = getattr(owner, name)
    setattr(owner, name, check.wrap(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _options_of(
    config: pytest.Config, item: pytest.Item, asks_for_fixture: Callable[[pytest.Item], bool]
) -> Options | None:
    marker = item.get_closest_marker(NAME)
    settings: dict[str, Any] = {name: config.getini(f"{NAME}_{name}") for name in _SETTINGS}
    kinds: tuple[str, ...] = tuple(config.getini(NAME))
    if asks_for_fixture(item):
        kinds = KINDS
    if marker is not None:
        kinds = marker.args or KINDS
        settings |= marker.kwargs
        settings["allow"] = [*config.getini(f"{NAME}_allow"), *marker.kwargs.get("allow", ())]
    try:
        return None if OFF in kinds else _read_options(kinds, **settings)
    except (ValueError, TypeError) as error:
        raise pytest.UsageError(f"{NAME}, {item.nodeid}: {error}") from None


def _read_options(kinds: Iterable[str], *, stall_ms: Any, repeats: Any, allow: Iterable[str]) -> Options:
    stall_ns = round(float(stall_ms) * 1e6)
    if stall_ns < STALL_NS:
        raise ValueError(f"stall_ms is {stall_ms}; shorter stalls than {STALL_NS / 1e6:.0f} ms are not seen")
    if int(repeats) < 2:
        raise ValueError(f"repeats is {repeats}; once is no repetition")
    wanted: frozenset[Kind] = frozenset(_read_kind(kind) for kind in kinds)
    return Options(wanted, stall_ns, int(repeats), tuple(map(parse_allowed, allow)))


def _read_kind(text: str) -> Kind:
    for kind in KINDS:
        if text == kind:
            return kind
    raise ValueError(f"{text!r} is none of {', '.join(KINDS)}, {OFF}")
