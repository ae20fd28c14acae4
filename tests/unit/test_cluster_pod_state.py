"""What a pod says of itself, in words for people; and pods that say anything."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cluster.pod_state import (
    annotation_of,
    has_started,
    is_going,
    is_over,
    reasons,
    uid_of,
)

ORDINARY = {"waiting": {"reason": "ContainerCreating"}}


def pod(**status: Any) -> dict[str, Any]:  # noqa: ANN401 - as it is
    return {"metadata": {"uid": "u", "annotations": {"a": "b"}}, "status": status}


def container(state: dict[str, Any], name: str = "app", restarts: int = 0) -> dict[str, Any]:
    return {"name": name, "state": state, "restartCount": restarts}


def test_the_clusters_words() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    ended = {"terminated": {"reason": "Error", "exitCode": 7}}
    told = reasons(
        pod(
            phase="Pending",
            conditions=[{"type": "Ready", "status": "False"}, scheduled],
            initContainerStatuses=[container(ended, "init")],
            containerStatuses=[container(waiting), container(ORDINARY, "other")],
        ),
        [{"reason": "Older", "message": "x"}, {"reason": "FailedMount", "message": "timed out"}],
    )
    assert told == (
        "Unschedulable; container init: ended with 7: Error; "
        "container app: ErrImagePull: not found; FailedMount: timed out"
    )
    assert reasons(pod(phase="Pending", containerStatuses=[container(ORDINARY)])) == (
        "its phase is Pending"
    )
    assert reasons({}) == "its phase is unknown"
    assert len(reasons(pod(reason="x" * 10_000))) == 1000


def test_whether_there_is_hope() -> None:
    assert uid_of(pod()) == "u"
    assert annotation_of(pod(), "a") == "b"
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert has_started(pod(containerStatuses=[container(ORDINARY), container(running)]))
    assert has_started(pod(containerStatuses=[container(ORDINARY, restarts=1)]))
    assert not has_started(pod(containerStatuses=[container(ORDINARY)]))
    assert [phase for phase in ("Pending", "Running", "Failed", "Succeeded") if
            is_over(pod(phase=phase))] == ["Failed", "Succeeded"]  # fmt: skip
    going = pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert (is_going(going), is_going(pod())) == (True, False)


KEYS = ("metadata", "uid", "annotations", "status", "phase", "conditions", "type", "reason",
        "message", "containerStatuses", "state", "waiting", "terminated", "name")  # fmt: skip

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["PodScheduled", "False", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING))
def test_whatever_it_says(said: dict[str, Any]) -> None:
    assert isinstance(reasons(said, [said]), str)
    assert isinstance(uid_of(said) + annotation_of(said, "uid"), str)
    assert {bool(each(said)) for each in (is_going, is_over, has_started)} <= {True, False}
