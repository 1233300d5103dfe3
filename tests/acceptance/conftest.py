"""The whole platform as real processes, driven from outside as a client does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.sdk import Octavo
from deploy.local import Platform

SHORT_TIMERS = {
    "OCTAVO_LEASE_SECONDS": "4",
    "OCTAVO_HEARTBEAT_SECONDS": "1",
    "OCTAVO_SWEEP_SECONDS": "0.5",
    "OCTAVO_RESEND_SECONDS": "3",
    "OCTAVO_IDEMPOTENCY_LEASE_SECONDS": "3",
    "OCTAVO_STALL_SECONDS": "60",
    "OCTAVO_MAX_UPLOAD_BYTES": str(20 * 1024**2),
    "OCTAVO_MAX_PAGES": "700",
}


@pytest.fixture(scope="package")
def fake_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose engine takes a twentieth of a second a page."""
    settings = {**SHORT_TIMERS, "OCTAVO_FAKE_DELAY_SECONDS": "0.05", "OCTAVO_FAKE_SLOTS": "4"}
    directory = tmp_path_factory.mktemp("platform")
    with Platform(directory, engine="fake", settings=settings) as platform:
        yield platform


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with two gateways and two engine workers, on which nobody counts on one alone."""
    settings = {
        **SHORT_TIMERS,
        "OCTAVO_FAKE_DELAY_SECONDS": "0.05",
        "OCTAVO_FAKE_SLOTS": "4",
        "OCTAVO_CONSUME_SECONDS": "5",
    }
    directory = tmp_path_factory.mktemp("pair")
    with Platform(
        directory, engine="fake", engine_workers=2, gateways=2, settings=settings
    ) as platform:
        yield platform


@pytest.fixture
def octavo(fake_platform: Platform) -> Iterator[Octavo]:
    """A client of the platform with the fake engine."""
    with Octavo(fake_platform.url, fake_platform.api_key) as client:
        yield client


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Where a test may write the document that it submits."""
    return tmp_path / "document"
