"""The blocks of a documentation page, to be executed as they stand."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "pgbouncer.md"

DOCUMENTED_ADDRESS = "app@127.0.0.1:6432/app"
"""As the page has it; tests put their own in its place."""


@cache
def documented(language: str, title: str = "") -> str:
    """The page's one block in a language whose first line has ``title`` in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if title in block.partition("\n")[0])
    return str(block)
