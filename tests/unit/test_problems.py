from __future__ import annotations

import json
from typing import Literal

import pytest

from headgate.config import RefusalOptions
from headgate.problems import Problem, describe_refusal


def problem(options: RefusalOptions | None = None, *, nothing_executed: bool = True) -> Problem:
    return describe_refusal(
        options or RefusalOptions(),
        database="shop",
        reason="overload",
        retry_after_s=3,
        nothing_executed=nothing_executed,
    )


@pytest.mark.parametrize(("status", "title"), [(503, "Service Unavailable"), (429, "Too Many Requests")])
def test_a_refusal_is_a_problem_of_the_wanted_status(status: Literal[429, 503], title: str) -> None:
    answer = problem(RefusalOptions(status=status))
    body = json.loads(answer.body)
    assert (answer.status, body["status"], body["title"]) == (status, status, title)
    assert answer.headers == {"Retry-After": "3", "Content-Type": "application/problem+json"}


def test_the_header_may_have_another_name() -> None:
    answer = problem(RefusalOptions(header="X-Retry-In"))
    assert answer.headers["X-Retry-In"] == "3"
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("nothing_executed", [True, False])
def test_it_is_called_safe_to_retry_only_if_nothing_was_executed(nothing_executed: bool) -> None:
    body = json.loads(problem(nothing_executed=nothing_executed).body)
    assert body["safe_to_retry"] is nothing_executed
    assert ("safe to retry" in body["detail"]) == nothing_executed


def test_a_refusal_names_the_database_and_the_reason_and_nothing_of_the_application() -> None:
    body = json.loads(problem().body)
    assert (body["database"], body["reason"]) == ("shop", "overload")
    assert set(body) == {"type", "title", "status", "detail", "database", "reason", "safe_to_retry"}
