"""Fetches what a soak run needs from a package index; nothing of it is ever committed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path


def fetch_source(requirement: str, directory: Path) -> Path:
    """Download a source distribution from the package index that pip is set up with, and unpack it.

    :returns: the directory that it unpacks to.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command = [*pip, "--no-binary", ":all:", "--dest", str(directory), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        raise SystemExit(f"soak: cannot download the source distribution of {requirement}:\n{done.stderr}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(directory, filter="data")
    return next(path for path in directory.iterdir() if path.is_dir())
