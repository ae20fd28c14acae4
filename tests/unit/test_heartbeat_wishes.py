"""What pods ask for: durations, kinds, numbers, and whatever else somebody writes there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import InvalidArgument
from agent.heartbeat.durations import parse_duration
from agent.heartbeat.wishes import DRAIN, HEARTBEAT, KEEP, KIND, Wish, drain_kind, wish_of
from agent.settings import Heartbeat
from agent.targets import Kind

NODE = Heartbeat()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300s", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1h0m30s", 3630.0),
        ("1.5h", 5400.0),
        ("0.5s", 0.5),
        ("0s", 0.0),
    ],
)
def test_a_duration_is_what_go_takes_it_for(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))
def test_all_units_together(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "5", "m", "5 m", "-5m", "+5m", "5m1h", "5m5m", "1e3s", "infs", "nans", ".5s", "5.s",
     "5M", "5ms", "5m\n", "\n5m", "5m\0", "\u0665m", "5𝗆", "9" * 10 + "s", "1.0.0s", "0x5s",
     "1_0s"],
)  # fmt: skip
def test_nonsense_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


def _refusal(read: Callable[[], object]) -> str:
    """Why it is refused; "" when it is not."""
    try:
        read()
    except InvalidArgument as error:
        return str(error)
    return ""


@settings(deadline=None)
@given(st.text(max_size=200))
def test_whatever_somebody_writes_is_refused_in_a_short_line_that_can_be_printed(text: str) -> None:
    annotations = {HEARTBEAT: text, KIND: text, KEEP: text, DRAIN: text}
    for read in (lambda: wish_of(annotations, NODE), lambda: drain_kind(annotations)):
        said = _refusal(read)
        assert said.isprintable()
        assert said.isascii()
        assert len(said) < 200


def test_a_wish_and_its_defaults() -> None:
    assert wish_of({}, NODE) is None
    assert wish_of({DRAIN: "true"}, NODE) is None
    assert wish_of({HEARTBEAT: "5m"}, NODE) == Wish(300.0, Kind.ROOTFS, 2)
    asked = {HEARTBEAT: "10s", KIND: "simple", KEEP: "7"}
    assert wish_of(asked, NODE) == Wish(10.0, Kind.SIMPLE, 7)


@pytest.mark.parametrize(
    ("annotations", "named"),
    [
        ({HEARTBEAT: "9.9s"}, HEARTBEAT),
        ({HEARTBEAT: "0s"}, HEARTBEAT),
        ({HEARTBEAT: "9999h"}, HEARTBEAT),
        ({HEARTBEAT: "5m", KIND: "Simple"}, KIND),
        ({HEARTBEAT: "5m", KIND: ""}, KIND),
        ({HEARTBEAT: "5m", KEEP: "0"}, KEEP),
        ({HEARTBEAT: "5m", KEEP: "-1"}, KEEP),
        ({HEARTBEAT: "5m", KEEP: "1001"}, KEEP),
        ({HEARTBEAT: "5m", KEEP: "٣"}, KEEP),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(annotations: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        wish_of(annotations, NODE)
    assert caught.value.argument == named


@pytest.mark.parametrize(
    ("annotations", "kind"),
    [
        ({}, None),
        ({KIND: "simple"}, None),
        ({DRAIN: "false"}, None),
        ({DRAIN: "true"}, Kind.ROOTFS),
        ({DRAIN: "true", KIND: "simple"}, Kind.SIMPLE),
        ({HEARTBEAT: "5m"}, Kind.ROOTFS),
        ({HEARTBEAT: "nonsense"}, Kind.ROOTFS),
        ({HEARTBEAT: "5m", DRAIN: "false"}, None),
    ],
)
def test_who_is_drained(annotations: dict[str, str], kind: Kind | None) -> None:
    assert drain_kind(annotations) == kind


@pytest.mark.parametrize("text", ["", "True", "yes", "1", "true "])
def test_opting_in_is_said_in_one_way(text: str) -> None:
    with pytest.raises(InvalidArgument, match="neither"):
        drain_kind({DRAIN: text, HEARTBEAT: "5m"})
