"""Where the lab keeps what it can make again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

OVERRIDE = "HEADGATE_CACHE"


def cache_directory(
    environment: Mapping[str, str] = os.environ, platform: str = sys.platform, home: Path | None = None
) -> Path:
    """Return Headgate's cache directory, which need not exist; ``HEADGATE_CACHE`` overrides it."""
    if override := environment.get(OVERRIDE):
        return Path(override).absolute()
    home = home or Path.home()
    if platform == "darwin":
        return home / "Library" / "Caches" / "headgate"
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "headgate" / "cache"
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    # The specification of XDG_CACHE_HOME demands that relative paths are ignored.
    return (base if base.is_absolute() else home / ".cache") / "headgate"
