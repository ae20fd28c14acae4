"""RESULTS.md: two programs write it, and each leaves the other's part as it is."""

from __future__ import annotations

from bench import markdown
from bench.outcome import Outcome, Samples


def whole(value: float) -> str:
    """What `make bench` writes."""
    samples = Samples()
    samples.add("agent", wall=value)
    return markdown.render(
        [Outcome("checkpoint", "Checkpoint", samples)], {"kernel": "6.1"}, command="b", date="d"
    )


def test_a_section_is_added_and_replaced() -> None:
    once = markdown.with_scale(whole(1.0), "first")
    again = markdown.with_scale(once, "second\n")
    assert once.startswith(whole(1.0).rstrip())
    assert markdown.scale_of(again).strip() == "second"
    assert "first" not in again


def test_a_section_outlives_what_is_before_it() -> None:
    before = markdown.with_scale(whole(1.0), "scale")
    after = markdown.with_scale(whole(2.0), markdown.scale_of(before))
    assert after == markdown.with_scale(whole(2.0), "scale")


def test_without_the_other_part_there_is_one() -> None:
    assert markdown.scale_of(whole(1.0)) == ""
    assert markdown.with_scale("", "scale") == "# Benchmark results\n\n## Scale\n\nscale\n"
