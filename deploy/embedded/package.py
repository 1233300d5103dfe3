"""Where pip put the files of the packages that carry the servers."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path

from deploy.embedded.errors import ServiceError


def folder(distribution: str, module: str) -> Path:
    """Return where a package's files are, without importing it; ServiceError if it is missing."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ServiceError(f"{distribution} is not installed")
    return Path(spec.origin).parent


def script(distribution: str, name: str) -> str:
    """Return a program that a package put beside this Python, or else on the path.

    ServiceError if it is on neither.
    """
    beside = Path(sysconfig.get_path("scripts")) / name
    program = str(beside) if beside.exists() else shutil.which(name)
    if program is None:
        raise ServiceError(f"{distribution} is not installed")
    return program
