"""The X-ray: where a service's time goes and what limits it, without a change to the service."""

from headgate.xray.allowing import hold_ok
from headgate.xray.console.access import ConsoleOptions
from headgate.xray.production import Production
from headgate.xray.startup import attach

__all__ = ["ConsoleOptions", "Production", "attach", "hold_ok"]
