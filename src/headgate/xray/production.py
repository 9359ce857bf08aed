"""The X-ray of a service in production: always on, cheap, and closed to whoever has no business with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate.errors import ConfigError
from headgate.xray.console.access import ConsoleOptions
from headgate.xray.console.serving import ConsoleMiddleware
from headgate.xray.figures import Export, Figures, figures_of
from headgate.xray.server_timing import ServerTimingMiddleware
from headgate.xray.slow_log import SlowLog
from headgate.xray.startup import attach

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from headgate.gate import Gate


@dataclass(frozen=True, slots=True)
class Production:
    """What is shown of a service while it works: ``install(app, db, watch=Production(…))``.

    For an app without Headgate's sessions: ``Production(…).attach(app)``. What is watched, and what is counted, is the
    process; the header and the console belong to the app.

    :ivar server_timing: add the ``Server-Timing`` header to every response. It tells whoever reads it how long the
        database took.
    :ivar slow: seconds from which on a request is said in the log, as ``headgate.xray``; None for none. Of several apps
        in a process, the shortest counts.
    :ivar console: where the console page is and who may see it; None for no page.
    :ivar exports: ``headgate.xray.metrics.Prometheus()``, ``headgate.xray.telemetry.OpenTelemetry()``.
    """

    server_timing: bool = False
    slow: float | None = None
    console: ConsoleOptions | None = None
    exports: tuple[Export, ...] = ()

    def __post_init__(self) -> None:
        slow = self.slow
        if slow is not None and not (isinstance(slow, int | float) and math.isfinite(slow) and slow >= 0):
            raise ConfigError(f"slow={slow!r} cannot work: use a number of seconds, or None for no log lines")
        if not isinstance(self.exports, tuple):
            raise ConfigError(f"exports=<{type(self.exports).__name__}> cannot work: give a tuple, (Prometheus(),)")

    def attach(self, app: Starlette, *, gate: Gate | None = None) -> Figures:
        """Watch the process, and show it as the options say; before the app has started.

        :param gate: one that is shown also before its first lease.
        """
        watch = attach(app)
        figures = figures_of(watch)
        if gate is not None:
            figures.know_gate(gate)
        if self.slow is not None:
            _log_slow(figures, round(self.slow * 1e9))
        for export in self.exports:
            figures.export(export)
        if self.console is not None:
            app.add_middleware(ConsoleMiddleware, figures=figures, options=self.console)
        if self.server_timing:
            app.add_middleware(ServerTimingMiddleware)
        return figures


def _log_slow(figures: Figures, threshold_ns: int) -> None:
    if figures.slow_log is None or threshold_ns < figures.slow_log.threshold_ns:
        figures.slow_log = SlowLog(threshold_ns)
