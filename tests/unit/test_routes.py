from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.routes import ENOUGH, LEARN_EVERY, MOST_ROUTES, RouteMemory


def taught(
    path: str, parameters: dict[str, object] | None = None, *, times: int = ENOUGH, asked: bool = True
) -> RouteMemory:
    memory = RouteMemory()
    for _ in range(times):
        memory.note("GET", path, parameters or {}, asked=asked)
    return memory


@pytest.mark.parametrize(("times", "needed"), [(0, False), (ENOUGH - 1, False), (ENOUGH, True)])
def test_a_route_is_known_after_a_few_requests(times: int, needed: bool) -> None:
    assert taught("/users", times=times).needs("GET", "/users") == needed


def test_a_route_that_does_without_the_database_is_let_in() -> None:
    assert not taught("/ping", asked=False, times=100).needs("GET", "/ping")


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/users/8/orders", True),
        ("GET", "/users/me/orders", True),
        ("POST", "/users/8/orders", False),
        ("GET", "/users/8", False),
        ("GET", "/users/8/orders/", False),
        ("GET", "/users/8/invoices", False),
    ],
)
def test_what_is_learned_of_one_parameter_is_known_of_all(method: str, path: str, needed: bool) -> None:
    assert taught("/users/7/orders", {"user_id": 7}).needs(method, path) == needed


def test_a_path_of_its_own_goes_before_the_pattern_it_fits() -> None:
    memory = taught("/users/7", {"user_id": 7})
    for _ in range(ENOUGH):
        memory.note("GET", "/users/me", {}, asked=False)
    assert not memory.needs("GET", "/users/me")
    assert memory.needs("GET", "/users/8")


def test_where_two_patterns_fit_both_must_need_it() -> None:
    memory = taught("/7/orders", {"user_id": 7})
    for _ in range(ENOUGH):
        memory.note("GET", "/static/logo", {"name": "logo"}, asked=False)
    assert memory.needs("GET", "/8/orders")
    assert not memory.needs("GET", "/static/orders"), "it could be either"


def test_a_route_that_needs_it_now_and_then_is_let_in() -> None:
    memory = RouteMemory()
    for number in range(100):
        memory.note("GET", "/cached", {}, asked=number % 2 == 0)
    assert not memory.needs("GET", "/cached")


def test_a_route_that_has_changed_its_ways_is_seen_in_time() -> None:
    memory = taught("/users", times=10_000)
    memory.note("GET", "/users", {}, asked=False)
    memory.note("GET", "/users", {}, asked=False)
    assert not memory.needs("GET", "/users")


def test_now_and_then_one_is_let_in_to_be_learned_from() -> None:
    memory = taught("/users")
    needed = [memory.needs("GET", "/users") for _ in range(3 * LEARN_EVERY)]
    assert needed.count(False) == 3


def test_a_route_seen_for_the_first_time_is_let_in() -> None:
    assert not RouteMemory().needs("GET", "/")


@given(st.lists(st.tuples(st.sampled_from(["/a/{}", "/{}/b", "/{}", "/{}/{}"]), st.integers(0, 3)), max_size=60))
def test_a_route_needs_the_database_only_if_every_request_that_taught_it_asked(notes: list[tuple[str, int]]) -> None:
    memory = RouteMemory()
    for pattern, value in notes:
        path = pattern.replace("{}", str(value))
        memory.note("GET", path, {"value": value}, asked=value != 0)
    for pattern, value in notes:
        path = pattern.replace("{}", str(value))
        if memory.needs("GET", path):
            assert any(other_value != 0 for _, other_value in notes)


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        pytest.param("/files/{}", {}, id="a path of its own for everything"),
        pytest.param("/files/{}/7", {"id": 7}, id="with a parameter"),
    ],
)
def test_the_memory_is_bounded_whatever_paths_clients_ask_for(path: str, parameters: dict[str, object]) -> None:
    memory = RouteMemory()
    for number in range(MOST_ROUTES + 100):
        memory.note("GET", path.replace("{}", str(number)), parameters, asked=True)
    assert len(memory._routes) <= MOST_ROUTES
    assert sum(map(len, memory._patterns.values())) <= MOST_ROUTES


def test_the_memory_is_bounded_whatever_methods_clients_ask_with() -> None:
    """A server may take any word for a method, and a router matches the path before it."""
    memory = RouteMemory()
    for number in range(MOST_ROUTES + 100):
        memory.note(f"METHOD{number}", "/users/7", {"id": 7}, asked=True)
    assert len(memory._patterns) <= MOST_ROUTES


def test_a_route_that_was_forgotten_is_learned_anew() -> None:
    memory = taught("/users/7", {"id": 7})
    for number in range(MOST_ROUTES):
        memory.note("GET", f"/{number}", {}, asked=True)
    assert not memory.needs("GET", "/users/8")
    for _ in range(ENOUGH):
        memory.note("GET", "/users/7", {"id": 7}, asked=True)
    assert memory.needs("GET", "/users/8")


def test_static_files_push_nothing_out() -> None:
    memory = taught("/users/7", {"id": 7})
    for number in range(2 * MOST_ROUTES):
        memory.note("GET", f"/static/{number}.js", {}, asked=False)
    assert memory.needs("GET", "/users/8")


def test_a_value_that_is_the_name_of_its_route_makes_no_pattern_of_everything() -> None:
    memory = taught("/items/items", {"name": "items"})
    assert memory.needs("GET", "/items/books")
    assert not memory.needs("GET", "/static/app.js")


def test_nothing_is_learned_of_a_parameter_that_is_not_in_the_path_as_it_stands() -> None:
    memory = RouteMemory()
    for number in range(10):
        memory.note("GET", f"/files/a/{number}", {"path": f"a/{number}"}, asked=True)
        memory.note("GET", f"/orders/00{number}", {"id": number}, asked=True)
    assert not memory._routes
