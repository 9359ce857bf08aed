"""Each limit is named, and none is taken for another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from headgate.lab.connection import connect
from headgate.lab.postgres import EmbeddedPostgres

from .xray_truth import Patient, get, patient

LIMITS = {"connections", "threads", "core", "loop", "client", "server"}
SERVER_LIMIT = 4


@pytest.fixture(scope="module")
def app(postgres: EmbeddedPostgres, postgres_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    with connect(postgres.url()) as connection:
        connection.execute(f"CREATE ROLE limited LOGIN PASSWORD 'limited' CONNECTION LIMIT {SERVER_LIMIT}")
    with patient("limits", postgres_url, tmp_path_factory.mktemp("limits") / "log") as served:
        served.warm_up("/ping", "/threads", "/connections", "/waiting")
        yield served
    with connect(postgres.url()) as connection:
        connection.execute("DROP ROLE limited")


def limits_named(app_told: list[str]) -> set[str]:
    return LIMITS & set(app_told)


@pytest.mark.parametrize(
    ("path", "limit", "places", "hold_s"),
    [("/threads", "threads", 40, 0.4), ("/connections", "connections", 15, 0.15), ("/core", "core", 1, 0.01)],
)
def test_a_limit_of_the_service(app: Patient, path: str, limit: str, places: int, hold_s: float) -> None:
    told = app.under(get(path, 200), record=f"limit_{limit}")
    binding = told.said(path, limit)
    assert limits_named(told.kinds(path)) == {limit}, str(told)
    assert binding.figures["limit"] == places
    assert binding.figures["hold_s"] == pytest.approx(hold_s, rel=0.3 + told.tolerance)
    allowed = binding.figures["rate"] * binding.figures.get("given", 1.0)
    assert allowed == pytest.approx(told.offer(path).throughput, rel=0.05 + told.tolerance), str(told)
    assert "remedy" not in told.kinds(path)


def test_the_servers_limit(app: Patient) -> None:
    told = app.under(get("/server", 100), record="limit_server")
    binding = told.said("/server", "server")
    assert limits_named(told.kinds("/server")) == {"server"}, str(told)
    assert binding.figures["limit"] == SERVER_LIMIT
    assert binding.figures["rate"] == pytest.approx(told.offer("/server").throughput, rel=0.1 + told.tolerance), str(
        told
    )
    [refusal] = told.said_of_service("server")
    assert "too many connections for role" in refusal.text


def test_the_clients_limit(app: Patient) -> None:
    told = app.under(get("/waiting", 40), get("/ping", 40), connections=4, record="limit_client")
    for path in ("/waiting", "/ping"):
        assert limits_named(told.kinds(path)) == {"client"}, str(told)
        assert told.said(path, "client").figures["connections"] == 4


def test_what_waits_for_others_is_told_whom_it_waits_for(app: Patient) -> None:
    told = app.under(get("/core", 150), get("/ping", 20))
    assert "because of another route: " in told.said("/ping", "core").text, str(told)
    assert "GET /core" in told.said("/ping", "core").text
