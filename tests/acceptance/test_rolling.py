"""Every process is restarted under load, and no client notices."""

from benchmarks import rolling
from deploy.local import Platform


def test_a_rolling_restart_of_every_process_costs_no_request_and_no_failure(pair: Platform) -> None:
    found = rolling.measure(pair, rounds=1, per_second=1)

    assert found.restarts == 7
    assert set(found.statuses) == {202}, found.problems
    assert found.failures == 0
