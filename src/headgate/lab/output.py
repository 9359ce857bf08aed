"""Writes a run to results.json and reads it back: whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from headgate.errors import LabError
from headgate.lab.results import SCHEMA_VERSION, Run

FILE_NAME = "results.json"

T = TypeVar("T")


def write_run(run: Run, directory: Path) -> Path:
    """Write ``results.json`` into ``directory``, which is made if it is missing, and return its path.

    An older file stays as it is until the new one is on the disk. Raises LabError.
    """
    return write_atomically(directory / FILE_NAME, encode_run(run))


def encode_run(run: Run) -> str:
    """Return the run as JSON; not-a-number and infinity, which JSON does not know, raise ValueError."""
    return json.dumps(asdict(run), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def write_atomically(path: Path, text: str) -> Path:
    """Write a file that appears whole or not at all. Raises LabError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "a directory of that name is in the way")
        _replace(path, text)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}; choose another --output") from None
    return path


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp keeps its file from everyone else; results are for everyone the directory is for.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)  # it cannot be read without being set
    os.umask(mask)
    return mask


def load_run(path: Path) -> Run:
    """Read a run back from ``results.json`` or from the directory that holds it.

    Raises LabError for a file that is missing, damaged or of another schema version.
    """
    path = path / FILE_NAME if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}; run the lab first") from None
    except ValueError as error:
        raise LabError(f"{path} is no JSON: {error}; run the lab again") from None
    return decode_run(data, path)


def decode_run(data: Any, path: Path) -> Run:
    """Return the run that parsed JSON describes; ``path`` is for the message. Raises LabError."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise LabError(f"{path} has schema version {version!r}, not {SCHEMA_VERSION}; run the lab again")
    try:
        return decode(Run, data, "run")
    except TypeError as error:
        raise LabError(f"{path} is damaged: {error}; run the lab again") from None


def decode(kind: type[T], data: Any, where: str) -> T:
    """Return ``data``, as parsed from JSON, as a value of the type ``kind``.

    Raises TypeError that says where the two differ.
    """
    return typing.cast("T", _decode(kind, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if is_dataclass(kind):
        return _decode_dataclass(typing.cast("type[Any]", kind), _expect(dict, data, where), where)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), _expect(list, data, where), where)
    if origin is dict:
        value_kind = typing.get_args(kind)[1]
        items = _expect(dict, data, where).items()
        return {key: _decode(value_kind, value, f"{where}.{key}") for key, value in items}
    if origin in (types.UnionType, typing.Union):
        return _decode_union(typing.get_args(kind), data, where)
    if origin is typing.Literal:
        if data not in typing.get_args(kind):
            raise TypeError(f"{where} is {data!r}")
        return data
    return _decode_plain(kind, data, where)


def _decode_dataclass(kind: type[Any], data: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(kind)
    values = {}
    for field in fields(kind):
        if field.name in data:
            values[field.name] = _decode(hints[field.name], data[field.name], f"{where}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise TypeError(f"{where}.{field.name} is missing")
    if unknown := data.keys() - values.keys():
        raise TypeError(f"{where}.{min(unknown)} is unknown")
    return kind(**values)


def _decode_tuple(kinds: tuple[Any, ...], data: list[Any], where: str) -> tuple[Any, ...]:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(data)
    if len(kinds) != len(data):
        raise TypeError(f"{where} has {len(data)} entries, not {len(kinds)}")
    return tuple(_decode(k, value, f"{where}[{i}]") for i, (k, value) in enumerate(zip(kinds, data, strict=True)))


def _decode_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    exact = [kind for kind in kinds if type(data) is kind]
    candidates = exact or [kind for kind in kinds if kind is not type(None) and typing.get_origin(kind) is None]
    if not candidates:
        raise TypeError(f"{where} is {data!r}")
    return _decode(candidates[0], data, where)


def _decode_plain(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:  # JSON does not tell 1.0 from 1 for every writer
        return float(data)
    return _expect(kind, data, where)


def _expect(kind: type[T], data: Any, where: str) -> T:
    if type(data) is not kind:
        raise TypeError(f"{where} is {type(data).__name__}, not {kind.__name__}")
    return data
