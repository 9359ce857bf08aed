"""Fixtures for every suite: one embedded PostgreSQL a session, one empty database a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from sqlalchemy.engine import URL

from headgate.lab.environment import ambient_database_hidden
from headgate.lab.postgres import EmbeddedPostgres

pytest_plugins = ["pytester"]

# Enough to find what a change broke; HYPOTHESIS_PROFILE=long looks for what nobody has broken yet, and soak for hours.
settings.register_profile("short", max_examples=30, deadline=None)
settings.register_profile("long", max_examples=5_000, deadline=None)
settings.register_profile("soak", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session", autouse=True)
def _no_ambient_database() -> Iterator[None]:
    """No suite may depend on the PG* variables or the DATABASE_URL of whoever runs it."""
    with ambient_database_hidden():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A real PostgreSQL, started when the first test asks for it; 320 connections."""
    with EmbeddedPostgres(max_connections=320) as server:
        yield server


@pytest.fixture(scope="module")
def postgres_url(postgres: EmbeddedPostgres) -> Iterator[URL]:
    """URL of an empty database of the module's own, without a driver: ``url.set(drivername=…)``."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)
