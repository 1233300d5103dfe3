"""Folders of weights: good ones, and each way in which one can be wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Tiny
from worker.engine.deepseek import checkpoint, layout, tokenizer_file
from worker.engine.deepseek.errors import (
    CheckpointError,
    CheckpointMissing,
    CheckpointModified,
    CheckpointTruncated,
    CheckpointWrong,
)
from worker.engine.deepseek.tiny import WEIGHTS_FILE

OCTAVO = str(Path(sys.executable).with_name("octavo"))
HEADER = 8


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint, to be broken."""
    return Path(shutil.copytree(tiny(1), tmp_path / "model"))


def test_a_tiny_checkpoint_is_one_in_the_official_layout(tiny: Tiny) -> None:
    for version in (1, 2):
        found = checkpoint.inspect(tiny(version))

        assert found.config.version == version
        assert found.files.keys() == layout.shapes(found.config).keys()
        assert tokenizer_file.is_official((tiny(version) / "tokenizer.json").read_bytes())


def test_the_same_seed_makes_the_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    from worker.engine.deepseek import tiny as tiny_module

    tiny_module.write(tmp_path, 1)

    again, once = checkpoint.inspect(tmp_path), checkpoint.inspect(tiny(1))
    assert (again.fingerprint, again.notes) == (once.fingerprint, once.notes)


def rewrite_header(weights: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    """The file with another header in front of the same data."""
    data = weights.read_bytes()
    end = HEADER + int.from_bytes(data[:HEADER], "little")
    header = json.loads(data[HEADER:end])
    change(header)
    encoded = json.dumps(header).encode()
    weights.write_bytes(len(encoded).to_bytes(HEADER, "little") + encoded + data[end:])


def cut(weights: Path, size: int) -> None:
    weights.write_bytes(weights.read_bytes()[:size])


BREAKS: list[tuple[str, type[CheckpointError], str, Callable[[Path], object]]] = [
    ("no weights", CheckpointMissing, WEIGHTS_FILE, lambda f: (f / WEIGHTS_FILE).unlink()),
    ("no config", CheckpointMissing, "config", lambda f: (f / "config.json").unlink()),
    ("no tokenizer", CheckpointMissing, "tokenizer", lambda f: (f / "tokenizer.json").unlink()),
    ("no folder", CheckpointMissing, "no folder", shutil.rmtree),
    ("last byte", CheckpointTruncated, "1 bytes too few", lambda f: cut(f / WEIGHTS_FILE, -1)),
    ("half", CheckpointTruncated, "too few", lambda f: cut(f / WEIGHTS_FILE, 10**7)),
    ("in the header", CheckpointTruncated, "cut off", lambda f: cut(f / WEIGHTS_FILE, 100)),
    ("in the length", CheckpointTruncated, "cut off", lambda f: cut(f / WEIGHTS_FILE, 4)),
    ("empty", CheckpointTruncated, "cut off", lambda f: cut(f / WEIGHTS_FILE, 0)),
    (
        "a byte more",
        CheckpointWrong,
        "1 bytes too many",
        lambda f: (f / WEIGHTS_FILE).write_bytes((f / WEIGHTS_FILE).read_bytes() + b"x"),
    ),
    (
        "another model",
        CheckpointMissing,
        "qwen2_model",
        lambda f: (f / "config.json").write_text(
            (f / "config.json")
            .read_text()
            .replace("OCRFor", "OCR2For")
            .replace('"input_dim": 64', '"input_dim": 896')
        ),
    ),
    (
        "a tensor that is not there",
        CheckpointWrong,
        "gaps",
        lambda f: rewrite_header(f / WEIGHTS_FILE, lambda h: h.pop("model.norm.weight")),
    ),
    (
        "a tensor that is none of ours",
        CheckpointMissing,
        r"model\.norm\.weight",
        lambda f: rewrite_header(
            f / WEIGHTS_FILE, lambda h: h.update(strange=h.pop("model.norm.weight"))
        ),
    ),
    (
        "another shape",
        CheckpointWrong,
        r"model\.norm\.weight \[4, 8\] instead of \[32\]",
        lambda f: rewrite_header(
            f / WEIGHTS_FILE, lambda h: h["model.norm.weight"].update(shape=[4, 8])
        ),
    ),
    (
        "a shape of other bytes",
        CheckpointWrong,
        "has not the bytes",
        lambda f: rewrite_header(
            f / WEIGHTS_FILE, lambda h: h["model.norm.weight"].update(shape=[33])
        ),
    ),
    (
        "a negative size",
        CheckpointWrong,
        "no tensor",
        lambda f: rewrite_header(
            f / WEIGHTS_FILE, lambda h: h["model.norm.weight"].update(shape=[-4, -8])
        ),
    ),
    (
        "a type that is none",
        CheckpointWrong,
        "no tensor",
        lambda f: rewrite_header(
            f / WEIGHTS_FILE, lambda h: h["model.norm.weight"].update(dtype="PICKLE")
        ),
    ),
    (
        "no safetensors at all",
        CheckpointWrong,
        "no safetensors",
        lambda f: (f / WEIGHTS_FILE).write_bytes((4).to_bytes(HEADER, "little") + b"spam"),
    ),
    (
        "an index that leads out of the folder",
        CheckpointWrong,
        "no name of a file",
        lambda f: (f / checkpoint.INDEX_FILE).write_text('{"weight_map": {"a": "../x"}}'),
    ),
    (
        "an index that is none",
        CheckpointWrong,
        "no index",
        lambda f: (f / checkpoint.INDEX_FILE).write_text("[]"),
    ),
    (
        "an empty golden text",
        CheckpointWrong,
        "match pattern",
        lambda f: (f / checkpoint.NOTES_FILE).write_text('{"golden_text": " "}'),
    ),
]


@pytest.mark.parametrize(
    ("error", "said", "spoil"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS]
)
def test_a_checkpoint_that_is_broken_is_told_by_what_is_wrong(
    folder: Path, error: type[CheckpointError], said: str, spoil: Callable[[Path], object]
) -> None:
    spoil(folder)

    with pytest.raises(error, match=said) as raised:
        checkpoint.inspect(folder)
    assert type(raised.value) is error


def test_weights_may_lie_in_several_files_without_an_index(folder: Path) -> None:
    (folder / checkpoint.INDEX_FILE).unlink()

    assert checkpoint.inspect(folder).config.version == 1

    shutil.copy(folder / WEIGHTS_FILE, folder / "again.safetensors")
    with pytest.raises(CheckpointWrong, match="stands in another file too"):
        checkpoint.inspect(folder)


def test_what_the_network_never_uses_may_be_left_out(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS_FILE)
    for name in layout.UNUSED:
        del tensors[name]
    save_file(tensors, folder / WEIGHTS_FILE)

    assert not checkpoint.inspect(folder).files.keys() & layout.UNUSED


def write_sums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
    ]
    (folder / checkpoint.MANIFEST_FILE).write_text("".join(lines))


def test_a_manifest_tells_a_single_changed_bit(folder: Path) -> None:
    write_sums(folder)
    assert WEIGHTS_FILE in checkpoint.verify(folder)

    data = bytearray((folder / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(data)

    checkpoint.inspect(folder)  # which does not see it
    with pytest.raises(CheckpointModified, match=WEIGHTS_FILE):
        checkpoint.verify(folder)


def test_a_manifest_that_names_what_is_not_there_or_leads_outside(folder: Path) -> None:
    manifest = folder / checkpoint.MANIFEST_FILE
    with pytest.raises(CheckpointMissing):
        checkpoint.verify(folder)
    manifest.write_text("0" * 64 + "  absent.json\n")
    with pytest.raises(CheckpointMissing, match="absent"):
        checkpoint.verify(folder)
    manifest.write_text("0" * 64 + "  ../config.json\n")
    with pytest.raises(CheckpointWrong, match="no name of a file"):
        checkpoint.verify(folder)
    manifest.write_text("")
    with pytest.raises(CheckpointWrong, match="names no file"):
        checkpoint.verify(folder)


# The commands


def octavo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OCTAVO, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def test_models_check_says_what_a_folder_holds(folder: Path) -> None:
    done = octavo("models", "check", folder)

    assert done.returncode == 0, done.stderr
    assert "deepseek-ocr" in done.stdout
    assert "no checksums" in done.stdout

    write_sums(folder)
    assert "5 files are as SHA256SUMS says" in octavo("models", "check", folder).stdout


def test_models_check_says_in_a_line_what_is_wrong(folder: Path) -> None:
    cut(folder / WEIGHTS_FILE, -5)

    done = octavo("models", "check", folder)

    assert done.returncode == 1
    assert "5 bytes too few" in done.stderr
    assert "Traceback" not in done.stderr


def test_models_tiny_makes_a_checkpoint_that_passes_the_check(tmp_path: Path) -> None:
    made = octavo("models", "tiny", tmp_path / "model", "--version", "2")
    assert made.returncode == 0, made.stderr

    assert "deepseek-ocr-2" in octavo("models", "check", tmp_path / "model").stdout


def test_checking_needs_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['safetensors'] = None\n"
        "import deploy.models, worker.engine.deepseek.checkpoint\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
