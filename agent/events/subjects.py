"""The names of everything on the broker; proto/EVENTS.md explains them.

Clusters and nodes come from agent.settings, whose names are single words of a subject already.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from agent.settings import Node

ACTIONS: Final = "ACTIONS"
ACTION_EVENTS: Final = "ACTION_EVENTS"
INVENTORY: Final = "checkpoint-inventory"

ACTIONS_SUBJECTS: Final = "actions.>"
EVENTS_SUBJECTS: Final = "action-events.>"

WORK: Final = ("checkpoint", "restore")
CANCEL: Final = "cancel"


def action_subject(node: Node, kind: str) -> str:
    """Where actions of a kind (checkpoint, restore, cancel) for a node are published."""
    return f"actions.{node.cluster}.{node.name}.{kind}"


def event_subject(cluster: str, action_id: str) -> str:
    """Where the events of an action are published. Dots of an id part the subject as others do."""
    return f"action-events.{cluster}.{action_id}"


def kind_of(subject: str) -> str:
    """What action_subject was given."""
    return subject.rpartition(".")[2]


def consumer_name(node: Node, *, cancels: bool = False) -> str:
    """A node's durable consumer of ACTIONS. No name of a cluster or node has a ``=``."""
    name = f"{node.cluster}={node.name}"
    return f"{name}=cancel" if cancels else name


def inventory_key(node: Node) -> str:
    """A node's key in the inventory."""
    return f"{node.cluster}.{node.name}"


def node_of(key: str) -> Node | None:
    """Whose key of the inventory this is; None if it can be nobody's."""
    words = key.split(".")
    if len(words) != 2:
        return None
    try:
        return Node(cluster=words[0], name=words[1])
    except ValidationError:
        return None


def covers(patterns: Iterable[str], subject: str) -> bool:
    """Whether one of the patterns, with ``*`` and ``>``, takes in this subject.

    A ``*`` in the subject stands for every word: only a pattern that takes all of them takes it.
    """
    words = subject.split(".")
    return any(_matches(pattern.split("."), words) for pattern in patterns)


def _matches(pattern: list[str], words: list[str]) -> bool:
    if pattern[-1] == ">":
        pattern = pattern[:-1]
        if len(words) <= len(pattern):
            return False
        words = words[: len(pattern)]
    pairs = zip(pattern, words, strict=False)
    return len(pattern) == len(words) and all(part in ("*", word) for part, word in pairs)
