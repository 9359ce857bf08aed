"""The X-ray: where a service's time goes and what limits it, without a change to the service."""

from headgate.xray.startup import attach

__all__ = ["attach"]
