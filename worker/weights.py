"""Weights that lie in the object store: brought to this machine before an engine starts.

`OCTAVO_MODEL_DIR=s3://BUCKET/PREFIX` names them, in the platform's own store. An engine's process
has no key to it and reads a folder: that is OCTAVO_MODEL_CACHE/BUCKET/PREFIX. One worker of a
machine brings them, the others wait for it; what is there already is not brought again.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

import structlog

from shared import storage
from shared.errors import DependencyUnavailable, EngineUnavailable
from worker.engine.deepseek import checkpoint
from worker.engine.deepseek.errors import CheckpointError, CheckpointMissing

FOLDER, CACHE = "OCTAVO_MODEL_DIR", "OCTAVO_MODEL_CACHE"
SCHEME = "s3://"
DEFAULT_CACHE = "~/.cache/octavo/models"

TAGS_FILE = "etags.json"
LOCK_FILE = "lock"

_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]+)/(\w[\w.-]*(?:/\w[\w.-]*)*)/?")
_BELONGS = re.compile(r"[\w-][\w.-]*\.(?:json|safetensors)|SHA256SUMS")

log = structlog.get_logger()


def bring(environment: MutableMapping[str, str]) -> None:
    """Let OCTAVO_MODEL_DIR name a folder of this machine where it names a place in the store.

    Raises EngineUnavailable where it cannot be brought whole, and says why.
    """
    place = environment.get(FOLDER, "")
    if not place.startswith(SCHEME):
        return
    named = _PLACE.fullmatch(place)
    if named is None:
        raise EngineUnavailable(f"{FOLDER}: {place} is no s3://BUCKET/PREFIX")
    cache = Path(environment.get(CACHE) or DEFAULT_CACHE).expanduser()
    bucket, prefix = named.groups()
    folder = cache / bucket / prefix
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            _synchronise(bucket, prefix, folder)
    except DependencyUnavailable as error:
        raise EngineUnavailable(f"{FOLDER}: {place}: {error} {error.__cause__}") from error
    except (storage.ObjectMissing, CheckpointError, OSError) as error:
        raise EngineUnavailable(f"{FOLDER}: {place}: {error}") from error
    environment[FOLDER] = str(folder)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep the other workers of this machine out; the lock ends with its process."""
    with (folder / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _synchronise(bucket: str, prefix: str, folder: Path) -> None:
    """Make `folder` hold the files of the place as they are now, and no others."""
    tags = folder / TAGS_FILE
    there = _listed(bucket, prefix)
    here = _known(tags)
    missing = [
        name for name in there if here.get(name) != there[name] or not (folder / name).is_file()
    ]
    try:
        for name in missing:
            _download(bucket, f"{prefix}/{name}", folder / name)
        for path in folder.iterdir():
            if path.is_file() and path.name not in {*there, LOCK_FILE, TAGS_FILE}:
                path.unlink()
        checkpoint.inspect(folder)
        if missing and checkpoint.MANIFEST_FILE in there:
            checkpoint.verify(folder)
    except CheckpointError:
        tags.unlink(missing_ok=True)  # another try may find it mended
        raise
    tags.write_text(json.dumps(there))


def _known(tags: Path) -> dict[str, str]:
    """The ETags of the files that are here; of none where the list is not there, or torn."""
    try:
        return dict(json.loads(tags.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _listed(bucket: str, prefix: str) -> dict[str, str]:
    """What belongs to a checkpoint under `prefix`: names and ETags."""
    pages = storage.store().get_paginator("list_objects_v2")
    with storage.typed_errors():
        listed = [
            (entry["Key"].removeprefix(f"{prefix}/"), entry["ETag"])
            for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/")
            for entry in page.get("Contents", [])
        ]
    found = {name: tag for name, tag in listed if _BELONGS.fullmatch(name)}
    if not found:
        raise CheckpointMissing("nothing that belongs to a checkpoint is there")
    return found


def _download(bucket: str, key: str, path: Path) -> None:
    log.info("weights_brought", bucket=bucket, key=key)
    partial = path.with_suffix(".partial")
    with storage.typed_errors():
        storage.store().download_file(bucket, key, str(partial))
    partial.replace(path)
