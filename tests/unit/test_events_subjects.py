"""Names on the broker."""

from __future__ import annotations

import pytest

from agent.events import subjects
from agent.settings import Node


def test_a_nodes_subjects_and_names() -> None:
    node = Node(cluster="prod", name="ip-10-0-0-1.internal")
    assert subjects.action_subject(node, "restore") == "actions.prod.ip-10-0-0-1_internal.restore"
    assert subjects.inventory_key(node) == "prod.ip-10-0-0-1_internal"


def test_no_two_nodes_share_a_consumer() -> None:
    one, other = Node(cluster="a-b", name="c"), Node(cluster="a", name="b-c")
    assert subjects.consumer_name(one) != subjects.consumer_name(other)
    assert subjects.consumer_name(one) != subjects.consumer_name(one, cancels=True)


@pytest.mark.parametrize(
    ("action_id", "end"),
    [("a1", "a1"), ("a.b", "a.b")],
)
def test_an_events_subject_has_no_empty_part(action_id: str, end: str) -> None:
    assert subjects.event_subject("prod", action_id) == f"action-events.prod.{end}"


@pytest.mark.parametrize(
    ("patterns", "subject", "covered"),
    [
        (["actions.>"], "actions.a.b", True),
        (["actions.>"], "actions", False),
        (["actions.a.*"], "actions.a.b", True),
        (["actions.a.*"], "actions.a.b.c", False),
        (["actions.*.b"], "actions.a.b", True),
        (["actions.b.>"], "actions.a.b", False),
        (["events.>", "actions.a.b"], "actions.a.b", True),
        ([">"], "actions.a.b", True),
        ([], "actions.a.b", False),
    ],
)
def test_patterns(patterns: list[str], subject: str, covered: bool) -> None:
    assert subjects.covers(patterns, subject) is covered
