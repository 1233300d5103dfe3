"""Whether something grows: the slope of a series, robust against its outliers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

HOUR = 3600.0
POINTS = 120
"""A longer series is thinned: the pairs of its points would be too many."""


Series = Sequence[tuple[float, float]]
"""Seconds on the monotonic clock, and a value."""


@dataclass(frozen=True)
class Trend:
    """How a series goes after the warm-up."""

    first: float
    last: float
    an_hour: float

    @property
    def growth(self) -> float:
        """By how much it grew over the time that was looked at."""
        return self.last - self.first


def trend(series: Series, *, after: float) -> Trend | None:
    """The trend of what lies after that moment; None where that is too little.

    The slope is the median of those of all pairs of points (Theil and Sen); first and last are
    medians of a tenth of the points, so that one garbage collection decides nothing.
    """
    late = [point for point in series if point[0] >= after]
    late = late[:: max(1, len(late) // POINTS)]
    tenth = len(late) // 10
    if tenth < 1:
        return None
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(late, 2) if b[0] > a[0]]
    return Trend(
        first=statistics.median(value for _, value in late[:tenth]),
        last=statistics.median(value for _, value in late[-tenth:]),
        an_hour=statistics.median(slopes) * HOUR,
    )
