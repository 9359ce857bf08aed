"""The X-ray: where a service's time goes and what limits it, without a change to the service."""
