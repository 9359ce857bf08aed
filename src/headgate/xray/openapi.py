"""Which requests an app's own schema gives: the GETs whose parameters it says values for. Pure.

A GET is safe by HTTP's definition (RFC 9110, 9.2.1); no value is invented, and nothing optional is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from headgate.xray.asks import Ask, Choice, LeftOut

Headers = tuple[tuple[str, str], ...]

_NOTHING: Final = object()
_MOST_REFERENCES: Final = 20
_METHODS: Final = ("post", "put", "patch", "delete", "head", "options", "trace")


class UnanswerableError(Exception):
    """A request cannot be made from the schema; says why."""


def choose_from_schema(schema: Mapping[str, Any], headers: Headers = ()) -> Choice:
    """The GETs that can be sent as the schema has them.

    :param headers: those of every request; with them, what asks for authorization may be sent.
    """
    asks: list[Ask] = []
    left_out: list[LeftOut] = []
    for path, item in (schema.get("paths") or {}).items():
        operation = item.get("get")
        if operation is not None:
            try:
                asks.append(_ask(schema, path, item, operation, headers))
            except UnanswerableError as why:
                left_out.append(LeftOut(f"GET {path}", str(why)))
        left_out += [LeftOut(f"{one.upper()} {path}", "may change something") for one in _METHODS[:4] if one in item]
    return Choice(tuple(asks), tuple(left_out))


def _ask(
    schema: Mapping[str, Any], path: str, item: Mapping[str, Any], operation: Mapping[str, Any], headers: Headers
) -> Ask:
    _require_authorization(schema, operation, headers)
    if (operation.get("requestBody") or {}).get("required"):
        raise UnanswerableError("wants a body")
    if _streams(operation):
        raise UnanswerableError("streams events for as long as it is listened to")
    query: list[tuple[str, Any]] = []
    more: list[tuple[str, str]] = []
    for place, name, value in _given(schema, item, operation, headers):
        if place == "path":
            path = path.replace(f"{{{name}}}", quote(_text(value), safe=""))
        elif place == "query":
            query += [(name, _text(one)) for one in (value if isinstance(value, list) else [value])]
        elif place == "header":
            more.append((name, _text(value)))
        else:
            more.append(("Cookie", f"{name}={quote(_text(value))}"))
    if "{" in path:
        raise UnanswerableError("has a parameter in its path that the schema does not describe")
    encoded = quote(path, safe="/%:@!$&'()*+,;=~-._") + (f"?{urlencode(query)}" if query else "")
    return Ask("GET", encoded, (*headers, *more))


def _given(
    schema: Mapping[str, Any], item: Mapping[str, Any], operation: Mapping[str, Any], headers: Headers
) -> Iterator[tuple[str, str, Any]]:
    """Each required parameter: where it goes, its name, its value."""
    sent = {name.lower() for name, _ in headers}
    for parameter in _parameters(schema, item, operation):
        place, name = parameter["in"], parameter["name"]
        if not (parameter.get("required") or place == "path") or (place == "header" and name.lower() in sent):
            continue
        value = _value(schema, parameter)
        if value is _NOTHING or value is None or value == "":
            raise UnanswerableError(
                f"needs {name} in its {place}, for which the schema has neither an example nor a default"
            )
        yield place, name, value


def _parameters(schema: Mapping[str, Any], item: Mapping[str, Any], operation: Mapping[str, Any]) -> list[Any]:
    """An operation's own, over those of its path."""
    both = [*(item.get("parameters") or ()), *(operation.get("parameters") or ())]
    found = [_resolve(schema, one) for one in both]
    return list({(one["in"], one["name"]): one for one in found}.values())


def _value(schema: Mapping[str, Any], parameter: Mapping[str, Any]) -> Any:
    value = _example(schema, parameter)
    return _example(schema, parameter.get("schema") or {}) if value is _NOTHING else value


def _example(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Any:
    """An example, else the default, else the first of the values that are allowed."""
    described = _resolve(schema, described)
    if "example" in described:
        return described["example"]
    examples = described.get("examples")
    if isinstance(examples, Mapping) and examples:  # a parameter's, by name
        return _resolve(schema, next(iter(examples.values()))).get("value", _NOTHING)
    if isinstance(examples, Sequence) and examples:  # a JSON schema's
        return examples[0]
    for name in ("default", "const"):
        if name in described:
            return described[name]
    if described.get("enum"):
        return described["enum"][0]
    return _example_of_any(schema, described)


def _example_of_any(schema: Mapping[str, Any], described: Mapping[str, Any]) -> Any:
    for kind in ("allOf", "anyOf", "oneOf"):
        for one in described.get(kind) or ():
            value = _example(schema, one)
            if value is not _NOTHING and value is not None:
                return value
    return _NOTHING


def _resolve(schema: Mapping[str, Any], described: Any) -> Mapping[str, Any]:
    for _ in range(_MOST_REFERENCES):
        reference = described.get("$ref") if isinstance(described, Mapping) else None
        if not isinstance(reference, str):
            break
        described = _behind(schema, reference)
    return described if isinstance(described, Mapping) and "$ref" not in described else {}


def _behind(schema: Mapping[str, Any], reference: str) -> Any:
    found: Any = schema
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _require_authorization(schema: Mapping[str, Any], operation: Mapping[str, Any], headers: Headers) -> None:
    wanted = operation.get("security", schema.get("security")) or []
    if not wanted or {} in wanted:
        return
    schemes = (schema.get("components") or {}).get("securitySchemes") or {}
    if not any(all(_is_met(schemes.get(name) or {}, headers) for name in one) for one in wanted):
        names = ", ".join(dict.fromkeys(name for one in wanted for name in one))
        raise UnanswerableError(f"needs authorization ({names}); give it by --header")


def _is_met(scheme: Mapping[str, Any], headers: Headers) -> bool:
    sent = {name.lower() for name, _ in headers}
    if scheme.get("type") != "apiKey":
        return "authorization" in sent
    place = scheme.get("in")
    return ("cookie" if place == "cookie" else str(scheme.get("name", "")).lower()) in sent and place != "query"


def _streams(operation: Mapping[str, Any]) -> bool:
    answers = (operation.get("responses") or {}).values()
    return any("text/event-stream" in (one.get("content") or {}) for one in answers if isinstance(one, Mapping))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
