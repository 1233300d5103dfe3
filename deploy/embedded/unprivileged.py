"""How root starts a program that refuses to run as root."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from typing import TYPE_CHECKING

from deploy.embedded.errors import ServiceError

if TYPE_CHECKING:
    from pathlib import Path


def identity(*paths: Path) -> tuple[list[str], int | None]:
    """Return the words to put in front of a command line, and the uid to change to.

    A user needs neither. Root changes to `nobody`, if `nobody` can get to all `paths`; if not (they
    lie in root's home, say), a user namespace makes root's files look like `nobody`'s. Where
    namespaces are refused too, ServiceError says what would help.
    """
    if os.geteuid() != 0:
        return [], None
    nobody = pwd.getpwnam("nobody").pw_uid
    if all(parent.stat().st_mode & stat.S_IXOTH for path in paths for parent in path.parents):
        return [], nobody
    prefix = ["unshare", "--user", f"--map-user={nobody}", f"--map-group={nobody}", "--"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)  # noqa: S603 - our own words
    except (OSError, subprocess.CalledProcessError) as error:
        places = " and ".join(map(str, paths))
        raise ServiceError(
            f"Postgres cannot run as root, and no other user can reach {places}: "
            "put both where everybody may enter, or start as an ordinary user"
        ) from error
    return prefix, None


def give(directory: Path, uid: int | None) -> None:
    """Make `uid`, or root where it is None, the owner of all files there; only root can."""
    if os.geteuid() != 0:
        return
    owner = uid or 0
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != owner:
            os.chown(path, owner, owner, follow_symlinks=False)
