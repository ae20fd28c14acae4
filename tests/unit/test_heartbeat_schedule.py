"""When which pod is due: no two rules about it can be broken by any order of events."""

from __future__ import annotations

import random
import uuid

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.heartbeat.schedule import MOST_BACKOFF, Beat, Schedule, spread
from agent.heartbeat.wishes import Wish
from agent.targets import Kind

INTERVALS = st.floats(0.5, 1e6)
JITTERS = st.floats(0.0, 0.5)


def wish(interval: float) -> Wish:
    return Wish(interval, Kind.SIMPLE, 2)


def schedule(jitter: float, seed: int = 0) -> Schedule:
    return Schedule(jitter, random.Random(seed))


def only(made: Schedule) -> Beat:
    found = made.due(float("inf"))
    assert found is not None
    return found


def test_a_node_s_pods_are_spread_over_the_interval() -> None:
    """As evenly as chance would do it, and each one where it was before the agent's restart."""
    uids = [str(uuid.UUID(int=number)) for number in range(1000)]
    tenths = [int(spread(uid) * 10) for uid in uids]
    assert set(tenths) == set(range(10))
    assert max(tenths.count(tenth) for tenth in range(10)) < 150
    made, again = schedule(0.0, 1), schedule(0.0, 2)
    for each in (made, again):
        each.update({uid: wish(100.0) for uid in uids}, 5.0)
    assert made.next_due() == again.next_due()


@settings(deadline=None)
@given(st.uuids().map(str), INTERVALS, JITTERS, st.integers())
def test_the_first_one_is_within_an_interval_and_its_jitter(
    uid: str, interval: float, jitter: float, seed: int
) -> None:
    made = schedule(jitter, seed)
    made.update({uid: wish(interval)}, 7.0)
    assert 7.0 <= made.next_due() <= 7.0 + interval * (1 + jitter)


@settings(deadline=None)
@given(INTERVALS, JITTERS, st.integers(), st.lists(st.booleans(), max_size=30))
def test_the_next_one_is_counted_from_the_end_of_the_last_one_and_later_after_failures(
    interval: float, jitter: float, seed: int, ends: list[bool]
) -> None:
    made = schedule(jitter, seed)
    made.update({"a": wish(interval)}, 0.0)
    failures = 0
    for number, worked in enumerate(ends):
        now = 1e7 * (number + 1)
        beat = only(made)
        if worked:
            made.succeeded(beat, now)
            failures = 0
        else:
            made.failed(beat, now)
            failures += 1
        intervals = min(2**failures, MOST_BACKOFF)
        least, most = (interval * intervals * (1 + sign * jitter) for sign in (-1, 1))
        assert least * 0.999 <= beat.due - now <= most * 1.001


@settings(deadline=None)
@given(INTERVALS, JITTERS, st.integers())
def test_what_is_put_off_comes_soon_again(interval: float, jitter: float, seed: int) -> None:
    made = schedule(jitter, seed)
    made.update({"a": wish(interval)}, 0.0)
    beat = only(made)
    made.failed(beat, 1e7)
    made.put_off(beat, 2e7)
    assert 0 < beat.due - 2e7 <= min(interval, 45.0)
    assert beat.failures == 1


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), INTERVALS), st.floats(0, 1e6))
def test_due_is_who_has_been_due_longest_and_nobody_who_is_not(
    wishes: dict[str, float], now: float
) -> None:
    made = schedule(0.1)
    made.update({uid: wish(interval) for uid, interval in wishes.items()}, 0.0)
    beat = made.due(now)
    assert (beat is None) == (made.next_due() > now)
    if beat is not None:
        assert beat.due == made.next_due()


def test_who_goes_is_forgotten_and_who_asks_anew_begins_anew() -> None:
    made = schedule(0.0)
    made.update({"a": wish(10.0)}, 0.0)
    beat = only(made)
    made.failed(beat, 0.0)
    made.update({"a": wish(10.0)}, 1.0)
    assert only(made) is beat
    made.update({"a": wish(20.0)}, 1.0)
    assert only(made).failures == 0
    made.update({}, 1.0)
    assert made.due(float("inf")) is None
    assert made.next_due() == float("inf")
