"""A node that a pod has to go to, or must not go to, beside what it asks for already."""

from __future__ import annotations

import copy
from typing import Any, Final, Literal

from agent.cluster.answers import Object
from agent.cluster.shapes import mapping, objects
from agent.errors import InvalidArgument

_FIELD: Final = "pod_spec.affinity"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def with_required_node(affinity: Any, operator: Literal["In", "NotIn"], node: str) -> Object:  # noqa: ANN401 - any JSON
    """``affinity`` with one more condition, which holds whatever else does.

    By the node's name, not by the label kubernetes.io/hostname: that is the host's, which some
    clouds call otherwise.

    Raises:
        InvalidArgument: it is no affinity.
    """
    changed = copy.deepcopy(mapping(affinity, _FIELD))
    of_nodes = changed["nodeAffinity"] = mapping(changed.get("nodeAffinity"), _FIELD)
    required = of_nodes[_REQUIRED] = mapping(of_nodes.get(_REQUIRED), _FIELD)
    condition = {"key": "metadata.name", "operator": operator, "values": [node]}
    if "nodeSelectorTerms" not in required:
        required["nodeSelectorTerms"] = [{"matchFields": [condition]}]
        return changed
    terms = objects(required["nodeSelectorTerms"], _FIELD)
    if not terms:
        raise InvalidArgument(_FIELD, "has nodeSelectorTerms, and none in it")
    # One of the terms has to hold, so it goes into each; but an empty one, which no node fits,
    # would fit nearly all then.
    for term in filter(None, terms):
        term["matchFields"] = [*objects(term.get("matchFields"), _FIELD), dict(condition)]
    return changed
