from __future__ import annotations

import importlib.util

import pytest

from headgate.errors import LabError
from headgate.lab.external_postgres import ExternalPostgres, explain_failure, parse_url, redact


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("postgresql://ann@db", "postgresql://ann@db:5432/postgres"),
        ("postgresql+psycopg://ann:pw@db:6000/app", "postgresql+psycopg://ann:pw@db:6000/app"),
        ("postgresql+asyncpg://ann@db/app?ssl=require", "postgresql+asyncpg://ann@db:5432/app?ssl=require"),
        ("postgresql://ann@/app?host=/run/pg", "postgresql://ann@:5432/app?host=%2Frun%2Fpg"),
    ],
)
def test_a_url_is_made_complete(text: str, complete: str) -> None:
    assert parse_url(text).render_as_string(hide_password=False) == complete


@pytest.mark.parametrize(
    ("text", "fact", "remedy"),
    [
        ("mysql://ann:s3cret@db/app", "mysql://ann:***@db/app has an unknown scheme", "use postgresql://"),
        ("postgresql+psycopg2://ann:s3cret@db/app", "unknown scheme", "postgresql+asyncpg://"),
        (
            "postgresql://ann:s3cret@db:port/app",
            "://***@db:port/app is no URL",
            "use postgresql://USER@HOST/NAME",
        ),
        ("s3cret", "is no URL", "use postgresql://USER@HOST/NAME"),
        ("postgresql://:s3cret@db/app", "names no user", "use postgresql://USER@HOST/NAME"),
        ("postgresql://ann:s3cret@/app", "names no host", "use postgresql://USER@HOST/NAME"),
        ("postgresql://ann@db/app?password=s3cret", "has the option 'password'", "leave it out"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained(text: str, fact: str, remedy: str) -> None:
    with pytest.raises(LabError) as raised:
        ExternalPostgres(text)
    message = str(raised.value)
    assert fact in message
    assert remedy in message
    assert "\n" not in message
    assert "s3cret" not in message or text == "s3cret"


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "asyncpg" else find(name))
    with pytest.raises(LabError, match=r"needs the driver asyncpg; pip install 'headgate\[lab\]'"):
        parse_url("postgresql+asyncpg://ann@db/app")


def test_the_ssl_mode_is_called_what_the_driver_calls_it() -> None:
    server = ExternalPostgres("postgresql://ann@db/app?sslmode=require")
    assert dict(server.url(driver="asyncpg").query) == {"ssl": "require"}
    assert dict(server.url(driver="psycopg").query) == {"sslmode": "require"}


def test_a_failure_without_an_answer_is_explained() -> None:
    assert "keeper ended" in explain_failure(parse_url("postgresql://ann@db"), {})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:secret@host/db", "postgresql://***@host/db"),
        ("postgres//app:secret@host", "postgres//***@host"),
        ("app:secret@host", "app:***@host"),
        ("postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_what_cannot_be_parsed_is_shown_without_what_may_be_a_password(text: str, shown: str) -> None:
    assert redact(text) == shown
