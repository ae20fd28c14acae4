"""What a pod says of itself: whether it waits, for what, and whether it is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from agent.cluster.answers import Object

# Characters of a reason. The scheduler names every node by what is wrong with it.
_LONGEST: Final = 1000

# What every container goes through, and tells nobody anything.
_ORDINARY: Final = ("ContainerCreating", "PodInitializing")


def uid_of(pod: Object) -> str:
    """Its UID; "" where there is none."""
    return _text(_part(pod, "metadata").get("uid"))


def annotation_of(pod: Object, name: str) -> str:
    """An annotation; "" where there is none."""
    return _text(_part(_part(pod, "metadata"), "annotations").get(name))


def is_going(pod: Object) -> bool:
    """Whether somebody has deleted it; nothing stops that any more."""
    return bool(_part(pod, "metadata").get("deletionTimestamp"))


def is_over(pod: Object) -> bool:
    """Whether nothing of it will run again: failed, evicted, or done."""
    return _part(pod, "status").get("phase") in ("Failed", "Succeeded")


def has_started(pod: Object) -> bool:
    """Whether any of its containers runs or has run."""
    return any(
        _part(each, "state").get("running") or each.get("restartCount")
        for each in _statuses(_part(pod, "status"))
    )


def reasons(pod: Object, events: Iterable[Object] = ()) -> str:
    """Why it does not run, in the cluster's words.

    Args:
        events: warnings about it, oldest first; the last one is told.
    """
    told = [*_of_pod(_part(pod, "status")), *_of_containers(_part(pod, "status"))]
    warnings = [_said(each.get("reason"), each.get("message")) for each in events]
    told += [each for each in warnings[-1:] if each]
    if not told:
        told = [f"its phase is {_text(_part(pod, 'status').get('phase')) or 'unknown'}"]
    return "; ".join(dict.fromkeys(told))[:_LONGEST]


def _of_pod(status: Object) -> Iterator[str]:
    if own := _said(status.get("reason"), status.get("message")):
        yield own
    for condition in _objects(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield _said(condition.get("reason"), condition.get("message")) or "not scheduled"


def _of_containers(status: Object) -> Iterator[str]:
    for each in _statuses(status):
        state = _part(each, "state")
        waiting, ended = _part(state, "waiting"), _part(state, "terminated")
        said = _said(waiting.get("reason"), waiting.get("message"))
        if said and said not in _ORDINARY:
            yield f"container {_text(each.get('name'))}: {said}"
        if ended:
            code = ended.get("exitCode")
            said = _said(ended.get("reason"), ended.get("message"))
            yield f"container {_text(each.get('name'))}: ended with {code}: {said}"


def _statuses(status: Object) -> list[Object]:
    kinds = ("initContainerStatuses", "containerStatuses")
    return [each for kind in kinds for each in _objects(status.get(kind))]


def _said(reason: object, message: object) -> str:
    return ": ".join(part for part in (_text(reason), _text(message)) if part)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _part(value: Object, key: str) -> Object:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _objects(value: Any) -> list[Object]:  # noqa: ANN401 - any JSON
    found = value if isinstance(value, list) else []
    return [each for each in found if isinstance(each, dict)]
