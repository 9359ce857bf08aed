"""Files that a command writes when it is done: a wrong place fails before the work, and no half of one is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headgate.errors import HeadgateError


@contextmanager
def new_file(option: str, name: str | None, error: type[HeadgateError]) -> Iterator[Callable[[Iterable[str]], None]]:
    """Yields what writes the file. It is opened at once, so that a wrong place fails before the run, under a
    name of its own, so that only a whole file ever has the name asked for. Without a name nothing is written."""
    if name is None:
        yield lambda _: None
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        raise error(f"{option} {name} is not a regular file; give the name of a file")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _naming(option, name, error):
        file = partial.open("x", encoding="utf-8")

    def save(lines: Iterable[str]) -> None:
        with _naming(option, name, error):
            with file:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)

    try:
        yield save
    finally:
        with suppress(OSError):  # a full disk was reported already, by the write that met it
            file.close()
        partial.unlink(missing_ok=True)


@contextmanager
def _naming(option: str, name: str, error: type[HeadgateError]) -> Iterator[None]:
    try:
        yield
    except OSError as found:
        raise error(
            f"cannot write {option} {name}: {found.strerror}; choose a place that exists and has room"
        ) from found
