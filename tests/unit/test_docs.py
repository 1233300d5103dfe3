"""What the documentation must name, it names."""

from pathlib import Path

import pytest

from shared.config import Settings
from shared.crash_point import POINTS
from shared.errors import OctavoError, restored
from worker.engine.remote.settings import RemoteSettings

ROOT = Path(__file__).parents[2]
SETTINGS = (ROOT / "docs/settings.md").read_text()
ERRORS = (ROOT / "docs/errors.md").read_text()


NAMES = [*Settings.model_fields, *(f"remote_{name}" for name in RemoteSettings.model_fields)]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_its_line(name: str) -> None:
    assert f"| `OCTAVO_{name.upper()}` |" in SETTINGS


def test_no_line_is_about_a_setting_that_is_gone() -> None:
    lines = [line for line in SETTINGS.splitlines() if line.startswith("| `OCTAVO_")]

    assert len(lines) == len(NAMES)


@pytest.mark.parametrize("error", OctavoError.__subclasses__(), ids=lambda error: error.code)
def test_every_error_has_its_line_with_its_facts(error: type[OctavoError]) -> None:
    retryable = "yes" if error.retryable else "no"
    [line] = [line for line in ERRORS.splitlines() if line.startswith(f"| `{error.code}` |")]

    assert f"| {error.status} | {retryable} |" in line
    assert error.title() in line


def test_every_error_can_be_restored_from_its_code() -> None:
    for error in OctavoError.__subclasses__():
        assert type(restored(error.code, "why")) is error


def test_codes_are_unique() -> None:
    codes = [error.code for error in OctavoError.__subclasses__()]

    assert len(codes) == len(set(codes))


def test_every_crash_point_has_its_line_in_order() -> None:
    lines = (ROOT / "docs/crash-points.md").read_text().splitlines()
    numbered = [line.split("|")[1:3] for line in lines if line.startswith("| ") and "`" in line]

    assert [(int(number), name.strip(" `")) for number, name in numbered] == list(
        enumerate(POINTS, 1)
    )
