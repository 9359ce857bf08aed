"""What people do to sessions is found, and where nothing is wrong nothing is said."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from .xray_truth import Patient, get, patient


@pytest.fixture(scope="module")
def app(postgres_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    with patient("sessions", postgres_url, tmp_path_factory.mktemp("sessions") / "log") as served:
        served.warm_up("/orders", "/healthy")
        yield served


REPEATS = [
    ("/orders", "Order.items", "selectinload(Order.items)"),
    ("/items", "Item.order", "joinedload(Item.order)"),
    ("/notes", "Order.note", "undefer(Order.note)"),
    ("/expired", "Order", "expire_on_commit=False"),
    ("/lookups", "", "ask once for all of them"),
]


def test_repeated_statements_with_cause_and_cure(app: Patient) -> None:
    told = app.under(*(get(path, 5) for path, _, _ in REPEATS), record="repeats")
    for path, cause, cure in REPEATS:
        repeat = told.said(path, "repeat")
        assert repeat.figures["times"] == 10, str(told)
        assert (f"to load {cause} for one object at a time" in repeat.text) == bool(cause), str(told)
        assert cure in repeat.text, str(told)
        assert repeat.site is not None
        assert repeat.site.text.startswith("return sum(")


def test_a_second_connection_within_a_request(app: Patient) -> None:
    told = app.under(get("/twice", 10), seconds=0.5, record="twice")
    twice = told.said("/twice", "twice")
    assert twice.figures == {"share": 1.0, "limit": 15.0}
    assert twice.site is not None
    assert twice.site.text == 'await session.execute(text("SELECT 2"))'


def test_a_response_that_is_streamed_from_an_open_session(app: Patient) -> None:
    told = app.under(get("/stream", 10), seconds=0.5, record="stream")
    sending = told.said("/stream", "send")
    assert sending.figures["held_s"] == pytest.approx(0.2, rel=0.1), str(told)
    assert "asyncio.sleep" in sending.text
    assert "after answer" not in told.kinds("/stream")


def test_a_connection_that_background_tasks_keep(app: Patient) -> None:
    told = app.under(get("/background", 10), seconds=0.5, record="background")
    after = told.said("/background", "after answer")
    assert after.figures["held_s"] == pytest.approx(0.2, rel=0.1), str(told)
    assert "asyncio.sleep" in after.text
    assert "send" not in told.kinds("/background")


def test_an_idle_and_healthy_service_hears_no_advice(app: Patient) -> None:
    told = app.under(get("/healthy", 20), record="healthy")
    assert told.kinds("/healthy") == ["not saturated"], str(told)
    assert {sentence.kind for sentence in told.explanation.service} <= {"stall", "note"}, str(told)
    assert not any(sentence.site for sentence in told.explanation.service), str(told)


def test_sessions_that_nobody_closes(app: Patient) -> None:
    told = app.under(get("/forgotten", 20), seconds=0.4, record="forgotten")
    [leak] = told.said_of_service("leak")
    assert leak.figures["count"] == 4, str(told)
    assert leak.site is not None
    assert (leak.site.function, leak.site.text) == ("forget", 'await session.execute(text("SELECT 1"))')
    binding = told.said("/forgotten", "connections")
    assert binding.figures["lost"] == 4
    assert binding.site == leak.site
