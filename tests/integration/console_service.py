"""A service with a console, for a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from headgate.xray import ConsoleOptions, Production


def make_app(configuration: Mapping[str, Any]) -> FastAPI:
    app = FastAPI()
    Production(console=ConsoleOptions(configuration["token"])).attach(app)
    return app
