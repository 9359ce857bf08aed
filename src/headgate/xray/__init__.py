"""The X-ray: where a service's time goes and what limits it, without a change to the service."""

from headgate.xray.allowing import hold_ok
from headgate.xray.startup import attach

__all__ = ["attach", "hold_ok"]
