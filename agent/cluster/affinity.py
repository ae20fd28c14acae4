"""A node that a pod has to go to, or must not go to, beside what it asks for already."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from agent.cluster.answers import Object
from agent.cluster.shapes import mapping, objects
from agent.errors import InvalidArgument

_FIELD: Final = "pod_spec.affinity"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """``In`` or ``NotIn`` a node. By its name, not by the label kubernetes.io/hostname: that is the
    host's, which some clouds call otherwise.
    """

    operator: str
    node: str

    def __str__(self) -> str:
        return f"{self.operator} {self.node}"

    @classmethod
    def parsed(cls, text: str) -> NodeCondition | None:
        """What ``str`` has made of one; None for anything else."""
        operator, _, node = text.partition(" ")
        return cls(operator, node) if operator in ("In", "NotIn") else None

    def as_field(self) -> Object:
        """As a pod's spec has it."""
        return {"key": "metadata.name", "operator": self.operator, "values": [self.node]}


def with_condition(affinity: Any, condition: NodeCondition) -> Object:  # noqa: ANN401 - any JSON
    """``affinity`` with one more condition, which holds whatever else does.

    Raises:
        InvalidArgument: it is no affinity.
    """
    changed = copy.deepcopy(mapping(affinity, _FIELD))
    of_nodes = changed["nodeAffinity"] = mapping(changed.get("nodeAffinity"), _FIELD)
    required = of_nodes[_REQUIRED] = mapping(of_nodes.get(_REQUIRED), _FIELD)
    if "nodeSelectorTerms" not in required:
        required["nodeSelectorTerms"] = [{"matchFields": [condition.as_field()]}]
        return changed
    terms = objects(required["nodeSelectorTerms"], _FIELD)
    if not terms:
        raise InvalidArgument(_FIELD, "has nodeSelectorTerms, and none in it")
    # One of the terms has to hold, so it goes into each; but an empty one, which no node fits,
    # would fit nearly all then.
    for term in filter(None, terms):
        term["matchFields"] = [*objects(term.get("matchFields"), _FIELD), condition.as_field()]
    return changed


def without_condition(affinity: Any, condition: NodeCondition) -> Object:  # noqa: ANN401 - any JSON
    """``affinity`` as it was before `with_condition`; empty where that has made all of it.

    Raises:
        InvalidArgument: it is no affinity.
    """
    changed = copy.deepcopy(mapping(affinity, _FIELD))
    of_nodes = mapping(changed.get("nodeAffinity"), _FIELD)
    required = mapping(of_nodes.get(_REQUIRED), _FIELD)
    terms = objects(required.get("nodeSelectorTerms"), _FIELD)
    left = [each for each in terms if not each or _take_out(each, condition)]
    if left == terms:
        return changed
    required["nodeSelectorTerms"] = left
    if not left:
        del of_nodes[_REQUIRED]
    if not of_nodes:
        del changed["nodeAffinity"]
    return changed


def _take_out(term: Object, condition: NodeCondition) -> bool:
    """Take a condition out of a term; False where it was all of it."""
    fields = objects(term.get("matchFields"), _FIELD)
    left = [each for each in fields if each != condition.as_field()]
    if len(left) == len(fields):
        return True
    if left:
        term["matchFields"] = left
    else:
        term.pop("matchFields", None)
    return bool(term)
