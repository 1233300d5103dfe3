"""A server is away for a while, under load: refused in words, nothing lost, nothing blamed."""

import time

import httpx
import pytest

from api import readiness
from benchmarks import outages
from deploy.local import Platform

SECONDS = 6
TAKEN = {202}
TAKEN_OR_REFUSED = {202, 503}

ANSWERS = {
    "valkey frozen": TAKEN,
    "valkey gone": TAKEN,
    "store gone": TAKEN_OR_REFUSED,
    "postgres aborted": TAKEN_OR_REFUSED,
    "postgres frozen": TAKEN_OR_REFUSED,
    "tables locked": TAKEN_OR_REFUSED,
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"WARM": 0.5, "CALM": 1.0, "AFTER": 2.0}.items():
        monkeypatch.setattr(outages, f"{name}_SECONDS", seconds)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_outage_loses_no_job_and_is_nobodys_fault(pair: Platform, name: str) -> None:
    found = outages.measure(pair, name, SECONDS)

    assert set(found.statuses) == ANSWERS[name]
    assert found.without_retry_after == 0
    assert found.failures == 0
    assert found.recovered_after <= outages.RECOVERY_SECONDS
    assert found.done_after <= outages.DONE_SECONDS


def test_a_gateway_is_not_ready_while_the_database_is_away_and_serves_once_it_is_back(
    pair: Platform,
) -> None:
    with pair.outage("postgres"):
        time.sleep(max(readiness.REMEMBERED_SECONDS))
        ready = httpx.get(f"{pair.url}/readyz", timeout=5)
        lives = httpx.get(f"{pair.url}/livez", timeout=5)

    assert ready.status_code == 503
    assert ready.json()["retryable"]
    assert ready.headers["Retry-After"]
    assert lives.status_code == 200
    back_since = time.monotonic()
    while not all(_lists_jobs(url, pair.api_key) for url in pair.urls):
        assert time.monotonic() - back_since < outages.RECOVERY_SECONDS


def _lists_jobs(url: str, api_key: str) -> bool:
    headers = {"Authorization": f"Bearer {api_key}"}
    return httpx.get(f"{url}/v1/jobs", headers=headers, timeout=5).is_success
