"""Which requests an app's schema gives."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Path, Query
from fastapi.security import APIKeyHeader, HTTPBearer

from headgate.xray.asks import Ask
from headgate.xray.openapi import choose_from_schema


class Colour(StrEnum):
    red = "red"
    blue = "blue"


def app_schema() -> dict[str, Any]:  # noqa: C901
    app = FastAPI()

    @app.get("/plain")
    def plain(page: int = 1) -> None: ...

    @app.get("/items/{id}")
    def item(id: int) -> None: ...

    @app.get("/items/{id}/notes/{note}")
    def note(
        id: Annotated[int, Path(examples=[7])],
        note: Annotated[str, Path(openapi_examples={"one": {"value": "a b/ü"}})],
    ) -> None: ...

    @app.get("/search")
    def search(
        q: Annotated[str, Query(examples=["tea & milk"])], tags: Annotated[list[int], Query(examples=[[1, 2]])]
    ) -> None: ...

    @app.get("/colour/{colour}")
    def colour(colour: Colour) -> None: ...

    @app.get("/needed")
    def needed(q: str, x_key: Annotated[str, Header()]) -> None: ...

    @app.get("/headed")
    def headed(
        x_key: Annotated[bool, Header(examples=[True])], theme: Annotated[str, Cookie(examples=["dark"])]
    ) -> None: ...

    @app.get("/me", dependencies=[Depends(HTTPBearer())])
    def me() -> None: ...

    @app.get("/keyed", dependencies=[Depends(APIKeyHeader(name="X-Api-Key"))])
    def keyed() -> None: ...

    @app.post("/items")
    def create() -> None: ...

    @app.delete("/items/{id}")
    def delete(id: int) -> None: ...

    return app.openapi()


def chosen(headers: tuple[tuple[str, str], ...] = ()) -> dict[str, Ask]:
    return {ask.path: ask for ask in choose_from_schema(app_schema(), headers).asks}


def test_gets_with_a_value_for_all_they_need_are_taken() -> None:
    assert list(chosen()) == [
        "/plain",
        "/items/7/notes/a%20b%2F%C3%BC",
        "/search?q=tea+%26+milk&tags=1&tags=2",
        "/colour/red",
        "/headed",
    ]
    assert chosen()["/headed"].headers == (("x-key", "true"), ("Cookie", "theme=dark"))


def test_what_is_left_out_is_said_with_its_reason() -> None:
    left_out = {one.what: one.why for one in choose_from_schema(app_schema()).left_out}
    assert left_out == {
        "GET /items/{id}": "needs id in its path, for which the schema has neither an example nor a default",
        "GET /needed": "needs q in its query, for which the schema has neither an example nor a default",
        "GET /me": "needs authorization (HTTPBearer); give it by --header",
        "GET /keyed": "needs authorization (APIKeyHeader); give it by --header",
        "POST /items": "may change something",
        "DELETE /items/{id}": "may change something",
    }


def test_with_authorization_what_asks_for_it_is_taken() -> None:
    headers = (("authorization", "Bearer x"), ("x-api-key", "k"))
    assert {"/me", "/keyed"} <= chosen(headers).keys()
    assert chosen(headers)["/me"].headers == headers
    assert "/keyed" not in chosen((("Authorization", "Bearer x"),))


def test_reasons_are_told_together() -> None:
    lines = choose_from_schema(app_schema()).left_out_lines()
    assert "left out: DELETE /items/{id}, POST /items: may change something" in lines


@pytest.mark.parametrize(
    ("parameter", "path"),
    [
        ({"schema": {"default": 3}}, "/x?n=3"),
        ({"schema": {"const": "c"}}, "/x?n=c"),
        ({"example": 1, "schema": {"default": 3}}, "/x?n=1"),
        ({"schema": {"anyOf": [{"type": "null", "default": None}, {"enum": ["e"]}]}}, "/x?n=e"),
        ({"schema": {"$ref": "#/components/schemas/N"}}, "/x?n=9"),
        ({"schema": {"$ref": "#/components/schemas/loop"}}, None),
        ({"schema": {"$ref": "https://elsewhere/N"}}, None),
        ({"schema": {"default": ""}}, None),
        ({}, None),
    ],
)
def test_where_a_value_comes_from(parameter: dict[str, Any], path: str | None) -> None:
    whole = {"name": "n", "in": "query", "required": True, **parameter}
    schema = {
        "paths": {"/x": {"get": {"parameters": [whole]}}},
        "components": {"schemas": {"N": {"example": 9}, "loop": {"$ref": "#/components/schemas/loop"}}},
    }
    assert [ask.path for ask in choose_from_schema(schema).asks] == ([] if path is None else [path])


def test_parameters_of_a_path_and_by_reference_count_too() -> None:
    schema = {
        "paths": {"/{a}": {"parameters": [{"$ref": "#/components/parameters/A"}], "get": {}}, "/{b}": {"get": {}}},
        "components": {"parameters": {"A": {"name": "a", "in": "path", "required": True, "example": 1}}},
    }
    choice = choose_from_schema(schema)
    assert [ask.path for ask in choice.asks] == ["/1"]
    assert choice.left_out[0].why == "has a parameter in its path that the schema does not describe"


def test_streams_and_bodies_are_left_out() -> None:
    schema = {
        "paths": {
            "/events": {"get": {"responses": {"200": {"content": {"text/event-stream": {}}}}}},
            "/odd": {"get": {"requestBody": {"required": True}}},
        }
    }
    choice = choose_from_schema(schema)
    assert choice.asks == ()
    assert [one.what for one in choice.left_out] == ["GET /events", "GET /odd"]


@pytest.mark.parametrize("schema", [{}, {"paths": {}}, {"paths": None}])
def test_an_empty_schema_gives_nothing(schema: dict[str, Any]) -> None:
    assert choose_from_schema(schema).asks == ()
