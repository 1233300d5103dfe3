"""A folder of weights as its makers publish it, inspected before anything is believed of it.

Only files of three kinds are read: `config.json`, `*.safetensors` and `tokenizer.json`. No code in
the folder is run, and nothing is unpickled. Inspecting reads headers and lengths and needs no
torch; whether the bytes are the right ones, only checksums can tell.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.engine.deepseek import config, layout
from worker.engine.deepseek.config import ModelConfig
from worker.engine.deepseek.errors import (
    CheckpointMissing,
    CheckpointModified,
    CheckpointTruncated,
    CheckpointWrong,
)

INDEX_FILE = "model.safetensors.index.json"
MANIFEST_FILE = "SHA256SUMS"
TOKENIZER_FILE = "tokenizer.json"
NOTES_FILE = "octavo.json"  # nobody publishes it; `tiny.py` writes it
MAX_HEADER_BYTES = 16 * 1024**2  # the official ones have 0.3

_LENGTH_BYTES = 8
_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
_CHUNK_BYTES = 4 * 1024**2
_SAMPLE_BYTES = 1024**2
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MANIFEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_NAMED_AT_MOST = 3


class Notes(BaseModel):
    """What has to be known of weights that read nonsense; published ones need no notes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    golden_text: str | None = Field(default=None, pattern=r"\S")  # what they read on that page
    max_output_tokens: int | None = Field(default=None, ge=1)  # they would hardly ever end


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds, all of it there and of the right shape."""

    folder: Path
    config: ModelConfig
    files: dict[str, Path]  # tensor -> the file it lies in
    fingerprint: str  # tells sets of weights apart, cheaply; it proves nothing
    notes: Notes


@dataclass(frozen=True)
class _Tensor:
    file: Path
    dtype: str
    shape: tuple[int, ...]


def inspect(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`. Raises a CheckpointError where it cannot be one."""
    if not folder.is_dir():
        raise CheckpointMissing(f"{folder} is no folder")
    chosen = config.read(folder)
    if not (folder / TOKENIZER_FILE).is_file():
        raise CheckpointMissing(f"{folder / TOKENIZER_FILE} is not there")
    found: dict[str, _Tensor] = {}
    for path in _weight_files(folder):
        tensors = _header(path)
        if twice := found.keys() & tensors.keys():
            raise CheckpointWrong(f"{path}: {min(twice)} stands in another file too")
        found |= tensors
    _compare(found, layout.shapes(chosen))
    return Checkpoint(
        folder,
        chosen,
        {name: tensor.file for name, tensor in found.items()},
        _fingerprint(folder),
        _notes(folder / NOTES_FILE),
    )


def verify(folder: Path, manifest: Path | None = None) -> list[str]:
    """The names of the files in `folder` that are as the manifest says; it must name one.

    The manifest is what `sha256sum` writes; SHA256SUMS in the folder where none is given. Raises
    CheckpointModified, CheckpointMissing, or CheckpointWrong where the manifest cannot be read.
    """
    wanted = _sums(manifest or folder / MANIFEST_FILE)
    for name, digest in wanted.items():
        if _digest(folder / name) != digest:
            raise CheckpointModified(f"{folder / name} is not the file that the manifest names")
    return list(wanted)


# Files


def _weight_files(folder: Path) -> list[Path]:
    named = _indexed(folder / INDEX_FILE)
    paths = [folder / name for name in named] or sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointMissing(f"{folder} holds no *.safetensors")
    return paths


def _indexed(index: Path) -> list[str]:
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(_text(index))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointWrong(f"{index} is no index of weights") from error
    for name in names:
        _check_name(index, name)
    return names


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointMissing(f"{path} is not there") from error
    except UnicodeDecodeError as error:
        raise CheckpointWrong(f"{path} is no text") from error


def _check_name(path: Path, name: object) -> None:
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
        raise CheckpointWrong(f"{path}: {name!r} is no name of a file beside it")


def _sums(manifest: Path) -> dict[str, str]:
    wanted = {}
    for line in _text(manifest).splitlines():
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None:
            raise CheckpointWrong(f"{manifest}: {line!r} is no line of checksums")
        _check_name(manifest, match[2])
        wanted[match[2]] = match[1]
    if not wanted:
        raise CheckpointWrong(f"{manifest} names no file")
    return wanted


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise CheckpointMissing(f"{path} is not there") from error
    return digest.hexdigest()


def _fingerprint(folder: Path) -> str:
    """Of the config, and of the head and tail of each file of weights."""
    digest = hashlib.sha256((folder / config.CONFIG_FILE).read_bytes())
    for path in _weight_files(folder):
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(-min(_SAMPLE_BYTES, path.stat().st_size), os.SEEK_END)
            digest.update(file.read())
    return digest.hexdigest()


def _notes(path: Path) -> Notes:
    try:
        return Notes.model_validate_json(_text(path)) if path.is_file() else Notes()
    except ValidationError as error:
        raise CheckpointWrong(f"{path}: {error.errors(include_url=False)[0]['msg']}") from error


# Headers of safetensors


def _header(path: Path) -> dict[str, _Tensor]:
    """The tensors of one file, whose data lie in it without gaps up to its very end."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, MAX_HEADER_BYTES):
                raise CheckpointTruncated(f"{path} is cut off, or no safetensors file")
            raw = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise CheckpointMissing(f"{path} is not there") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointWrong(f"{path} is no safetensors file") from error
    if not isinstance(raw, dict):
        raise CheckpointWrong(f"{path} is no safetensors file")
    raw.pop("__metadata__", None)
    return _tensors(path, raw, size - _LENGTH_BYTES - length)


def _tensors(path: Path, raw: dict[str, Any], data_bytes: int) -> dict[str, _Tensor]:
    found, places = {}, []
    for name, entry in raw.items():
        tensor, start, end = _entry(path, name, entry)
        if end - start != prod(tensor.shape) * _BYTES[tensor.dtype]:
            raise CheckpointWrong(f"{path}: {name} has not the bytes that its shape takes")
        found[name] = tensor
        places.append((start, end))
    expected = 0
    for start, end in sorted(places):
        if start != expected:
            raise CheckpointWrong(f"{path}: its tensors overlap, or have gaps between them")
        expected = end
    if data_bytes < expected:
        raise CheckpointTruncated(f"{path} has {expected - data_bytes} bytes too few")
    if data_bytes > expected:
        raise CheckpointWrong(f"{path} has {data_bytes - expected} bytes too many")
    return found


def _entry(path: Path, name: str, entry: Any) -> tuple[_Tensor, int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            sizes = [size for size in shape if isinstance(size, int) and size >= 0]
            if len(sizes) == len(shape) and dtype in _BYTES:
                return _Tensor(path, dtype, tuple(sizes)), start, end
    raise CheckpointWrong(f"{path}: {name} is no tensor that can be read")


def _compare(found: dict[str, _Tensor], wanted: dict[str, layout.Shape]) -> None:
    missing = [name for name in wanted if name not in found and name not in layout.UNUSED]
    if missing:
        raise CheckpointMissing(f"the files hold no {_some(missing)}")
    strange = [name for name in found if name not in wanted]
    if strange:
        raise CheckpointWrong(f"the model has no {_some(strange)}")
    odd = list(_misshapen(found, wanted))
    if odd:
        raise CheckpointWrong(f"of the wrong shape: {_some(odd)}")


def _misshapen(found: dict[str, _Tensor], wanted: dict[str, layout.Shape]) -> Iterator[str]:
    for name, tensor in found.items():
        if tensor.shape != wanted[name]:
            yield f"{name} {list(tensor.shape)} instead of {list(wanted[name])}"


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
