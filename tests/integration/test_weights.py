"""Weights in the object store: brought once, again where they changed, and never by halves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import storage
from shared.errors import EngineUnavailable
from tests.conftest import Tiny
from worker import weights
from worker.engine.deepseek import checkpoint
from worker.engine.deepseek.tiny import WEIGHTS_FILE

BUCKET, PREFIX = "weights", "deepseek/ocr"
PLACE = f"s3://{BUCKET}/{PREFIX}"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are brought."""
    brought: list[str] = []
    download = weights._download  # noqa: SLF001 - counted, then done

    def note(bucket: str, key: str, path: Path) -> None:
        brought.append(path.name)
        download(bucket, key, path)

    monkeypatch.setattr(weights, "_download", note)
    return brought


@pytest.fixture(autouse=True)
def _published(tiny: Tiny) -> Iterator[None]:
    storage.make_bucket(name=BUCKET)
    for path in tiny(1).iterdir():
        publish(path.name, path.read_bytes())
    publish("README.md", b"not a file of the checkpoint")
    publish("assets/config.json", b"nor is this")
    yield
    listed = storage.store().list_objects_v2(Bucket=BUCKET).get("Contents", [])
    for entry in listed:
        storage.store().delete_object(Bucket=BUCKET, Key=entry["Key"])
    storage.store().delete_bucket(Bucket=BUCKET)


def publish(name: str, body: bytes) -> None:
    storage.store().put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=body)


def bring(cache: Path, place: str = PLACE) -> Path:
    environment = {"OCTAVO_MODEL_DIR": place, "OCTAVO_MODEL_CACHE": str(cache)}
    weights.bring(environment)
    return Path(environment["OCTAVO_MODEL_DIR"])


def test_a_checkpoint_in_the_store_becomes_a_folder_of_this_machine(
    cache: Path, tiny: Tiny
) -> None:
    folder = bring(cache)

    assert folder == cache / BUCKET / PREFIX
    assert checkpoint.inspect(folder).fingerprint == checkpoint.inspect(tiny(1)).fingerprint
    brought = {path.name for path in tiny(1).iterdir()}
    assert {path.name for path in folder.iterdir()} == brought | {"etags.json", "lock"}


def test_a_folder_is_left_as_it_is(tmp_path: Path, cache: Path) -> None:
    assert bring(cache, str(tmp_path)) == tmp_path
    assert not cache.exists()


def test_what_is_there_is_not_brought_again_and_what_changed_is(
    cache: Path, downloads: list[str], tiny: Tiny
) -> None:
    folder = bring(cache)
    downloads.clear()
    bring(cache)
    assert downloads == []

    notes = json.loads((tiny(1) / checkpoint.NOTES_FILE).read_text())
    publish(checkpoint.NOTES_FILE, json.dumps(notes | {"max_output_tokens": 7}).encode())
    (folder / "left-over.safetensors").write_bytes(b"of an older version")
    bring(cache)
    assert downloads == [checkpoint.NOTES_FILE]
    assert checkpoint.inspect(folder).notes.max_output_tokens == 7
    assert not (folder / "left-over.safetensors").exists()


def test_a_torn_list_of_what_is_there_is_made_anew(cache: Path, downloads: list[str]) -> None:
    folder = bring(cache)
    (folder / weights.TAGS_FILE).write_text('{"config.json"')
    (folder / "version-2").mkdir()  # another worker's place, below this one
    downloads.clear()
    bring(cache)

    assert WEIGHTS_FILE in downloads
    downloads.clear()
    bring(cache)
    assert downloads == []
    assert (folder / "version-2").is_dir()


def test_a_download_that_broke_off_is_begun_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, downloads: list[str]
) -> None:
    def break_off(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(weights, "_download", break_off)
        with pytest.raises(EngineUnavailable, match=r"s3://.*no space left"):
            bring(cache)
    bring(cache)
    assert WEIGHTS_FILE in downloads


def test_a_checkpoint_that_is_not_what_its_checksums_say_is_refused_until_it_is_mended(
    cache: Path, tiny: Tiny
) -> None:
    body = (tiny(1) / WEIGHTS_FILE).read_bytes()
    publish("SHA256SUMS", f"{hashlib.sha256(b'other').hexdigest()}  {WEIGHTS_FILE}\n".encode())
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="is not the file that the manifest names"):
            bring(cache)

    publish("SHA256SUMS", f"{hashlib.sha256(body).hexdigest()}  {WEIGHTS_FILE}\n".encode())
    bring(cache)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://weights", "is no s3://BUCKET/PREFIX"),
        ("s3://weights/../secrets", "is no s3://BUCKET/PREFIX"),
        ("s3://nobody-made-this/model", "NoSuchBucket"),
        ("s3://weights/nothing/here", "nothing that belongs to a checkpoint"),
    ],
)
def test_a_place_that_holds_no_checkpoint_is_named(cache: Path, place: str, said: str) -> None:
    with pytest.raises(EngineUnavailable, match=said):
        bring(cache, place)
