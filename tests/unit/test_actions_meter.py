"""Progress: at most twice a second, with the rate of the last second."""

from __future__ import annotations

import itertools

from agent.actions.meter import Meter
from agent.report import Update


def test_nothing_is_said_of_what_is_over_in_no_time() -> None:
    now = [0.0]
    meter = Meter(lambda: now[0])
    now[0] = 0.4
    assert meter.update(Update("dump", 10)) is None


def test_twice_a_second_with_the_rate_of_the_last_second() -> None:
    now = [0.0]
    meter = Meter(lambda: now[0])
    said: list[tuple[float, int, float]] = []
    for step in range(1, 51):
        now[0] = step / 10
        # 1,000 a second for three seconds, then nothing.
        raw = round(min(now[0], 3.0) * 1000)
        if progress := meter.update(Update("dump", raw, raw // 2, 9000)):
            said.append((now[0], progress.bytes_raw, progress.bytes_per_second))
    times = [time for time, _, _ in said]
    assert all(later - earlier >= 0.5 for earlier, later in itertools.pairwise(times))
    assert len(said) == 10
    assert said[3] == (2.0, 2000, 1000.0)
    assert said[-1] == (5.0, 3000, 0.0)


def test_says_all_that_an_update_says() -> None:
    now = [0.0]
    meter = Meter(lambda: now[0])
    now[0] = 1.0
    progress = meter.update(Update("store", 8, 4, None))
    assert progress is not None
    assert (progress.phase, progress.bytes_raw, progress.bytes_stored) == ("store", 8, 4)
    assert (progress.bytes_total, progress.bytes_per_second) == (0, 8)
