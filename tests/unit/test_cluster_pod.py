"""The pod that is made of another one: what stays, what goes, and what is no pod."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cluster.pod import Restoration, restored_pod
from agent.errors import InvalidArgument
from tests.kubernetes_pods import full_pod
from tests.servers.kubernetes_admission import admit
from tests.servers.kubernetes_status import Refusal

HOME = "ip-10-0-0-1.ec2.internal"
WANTED = Restoration("s3://bucket/one", "action-1", "shop")
TERM = "requiredDuringSchedulingIgnoredDuringExecution"


def made(pod: dict[str, Any], **wanted: Any) -> dict[str, Any]:  # noqa: ANN401 - Restoration's fields
    given = {"path": WANTED.path, "action_id": WANTED.action_id, "namespace": "shop", **wanted}
    return restored_pod(pod["spec"], pod["metadata"], Restoration(**given))


def test_all_that_made_it_that_one_is_gone() -> None:
    original = full_pod()
    new = made(original)
    # Neither was changed.
    assert original == full_pod()
    assert set(new) == {"apiVersion", "kind", "metadata", "spec"}
    assert new["metadata"] == {
        "name": "web-7d9f8c6b5-abcde",
        "namespace": "shop",
        "labels": {"app": "web", "checkpoint-agent/restored": "true"},
        "annotations": {
            "checkpoint-agent/heartbeat": "5m",
            "checkpoint-agent/restore": "s3://bucket/one",
            "checkpoint-agent/restore-action": "action-1",
            "example.com/team": "shop",
        },
    }
    old, spec = original["spec"], new["spec"]
    gone = {
        "nodeName", "overhead", "preemptionPolicy", "priority", "schedulingGates",
        "serviceAccount", "ephemeralContainers",
    }  # fmt: skip
    assert set(old) - set(spec) == gone
    changed = {"containers", "initContainers", "tolerations", "volumes", "runtimeClassName"}
    assert {key for key in spec if spec[key] != old[key]} == changed
    assert spec["runtimeClassName"] == "checkpoint-runc"
    assert spec["volumes"] == old["volumes"][:2]
    # What the user has said of unreachable nodes is not the default.
    assert spec["tolerations"] == [old["tolerations"][0], old["tolerations"][2]]
    (app,), (proxy,) = spec["containers"], spec["initContainers"]
    assert app["volumeMounts"] == old["containers"][0]["volumeMounts"][:2]
    assert [each["name"] for each in app["env"]] == ["CHECKPOINT_NAME", "PASSWORD"]
    assert {key for key in app if app[key] != old["containers"][0][key]} == {"volumeMounts", "env"}
    # What has done its work before the checkpoint does not do it again.
    assert (proxy["name"], "volumeMounts" in proxy) == ("proxy", False)


def test_a_cluster_takes_it() -> None:
    new = made(full_pod())
    admit(new, {"checkpoint-runc"})
    again = restored_pod(new["spec"], new["metadata"], WANTED)
    first = made(full_pod())
    # A pod that is restored a second time does not pile anything up.
    assert again["metadata"] == first["metadata"]
    for key in ("volumes", "containers", "initContainers", "tolerations"):
        kept = [each for each in again["spec"][key] if each.get("tolerationSeconds") != 60]
        assert kept == [each for each in first["spec"][key] if each.get("tolerationSeconds") != 60]


def test_a_name_of_its_own() -> None:
    assert made(full_pod(), name="web-again")["metadata"]["name"] == "web-again"
    for name in ("Web", "a_b", "a..b", "-a", "a/b", "x" * 254, "a\n"):
        with pytest.raises(InvalidArgument) as error:
            made(full_pod(), name=name)
        assert error.value.argument == "overrides.pod_name"


def test_nodes_to_go_to_and_to_leave() -> None:
    away = made(full_pod(), leave=HOME)["spec"]["affinity"]
    terms = away["nodeAffinity"][TERM]["nodeSelectorTerms"]
    condition = {"key": "metadata.name", "operator": "NotIn", "values": [HOME]}
    # Either would do, so each has to have it; and both still ask for their GPUs.
    assert [each["matchFields"] for each in terms] == [[condition], [condition]]
    assert [each["matchExpressions"][0]["values"] for each in terms] == [["a100"], ["h100"]]
    assert "podAntiAffinity" in away
    pod = full_pod()
    del pod["spec"]["affinity"]
    assert "affinity" not in made(pod)["spec"]
    only = made(pod, node=HOME)["spec"]["affinity"]
    condition["operator"] = "In"
    assert only == {"nodeAffinity": {TERM: {"nodeSelectorTerms": [{"matchFields": [condition]}]}}}
    # A term that no node fits must not fit them all now.
    pod["spec"]["affinity"] = {"nodeAffinity": {TERM: {"nodeSelectorTerms": [{}]}}}
    affinity = made(pod, leave=HOME)["spec"]["affinity"]
    assert affinity["nodeAffinity"][TERM]["nodeSelectorTerms"] == [{}]


def test_conditions_on_nodes_do_not_pile_up() -> None:
    """From node to node and back: of two nodes, each may be the one to go to again."""
    bare = full_pod()
    del bare["spec"]["affinity"]
    empty = full_pod()
    empty["spec"]["affinity"]["nodeAffinity"][TERM]["nodeSelectorTerms"].append({})
    for original in (full_pod(), bare, empty):
        first = made(original, leave=HOME)
        annotations = first["metadata"]["annotations"]
        assert annotations["checkpoint-agent/restore-node"] == f"NotIn {HOME}"
        there = made(first, leave="other")
        assert there["spec"] == made(original, leave="other")["spec"]
        here = made(there, node="other")
        assert here["metadata"]["annotations"]["checkpoint-agent/restore-node"] == "In other"
        assert here["spec"] == made(original, node="other")["spec"]
        last = made(here)
        assert last["spec"] == made(original)["spec"]
        assert "checkpoint-agent/restore-node" not in last["metadata"]["annotations"]
    # What somebody has changed since is left as it is.
    first = made(bare, leave=HOME)
    first["metadata"]["annotations"]["checkpoint-agent/restore-node"] = "NotIn another"
    assert made(first)["spec"]["affinity"] == first["spec"]["affinity"]


def owned(kind: str, **labels: str) -> dict[str, Any]:
    pod = full_pod()
    pod["metadata"]["ownerReferences"][0]["kind"] = kind
    pod["metadata"]["labels"] = {"app": "web", **labels}
    return pod


def test_no_controller_takes_it() -> None:
    for kind, labels in {
        "ReplicaSet": {"rollouts-pod-template-hash": "1"},
        "Job": {"controller-uid": "1", "job-name": "j", "batch.kubernetes.io/job-name": "j"},
        "Widget": {},
    }.items():
        new = made(owned(kind, **labels))["metadata"]
        assert "ownerReferences" not in new
        assert new["labels"] == {"app": "web", "checkpoint-agent/restored": "true"}
    for kind in ("ReplicaSet", "ReplicationController", "DaemonSet"):
        with pytest.raises(InvalidArgument) as error:
            made(owned(kind))
        assert error.value.argument == "pod_metadata_spec.ownerReferences"
        assert kind in str(error.value)


def test_a_stateful_set_goes_on_with_its_own() -> None:
    labels = {
        "statefulset.kubernetes.io/pod-name": "web-7d9f8c6b5-abcde",
        "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": "web-1",
    }
    pod = owned("StatefulSet", **labels)
    assert labels.items() <= made(pod)["metadata"]["labels"].items()
    renamed = made(pod, name="web-copy")["metadata"]["labels"]
    assert not labels.keys() & renamed.keys()


def test_nobody_gets_into_another_namespace() -> None:
    with pytest.raises(InvalidArgument) as error:
        made(full_pod(), namespace="kube-system")
    assert error.value.argument == "pod_metadata_spec.namespace"
    pod = full_pod()
    del pod["metadata"]["namespace"]
    assert made(pod, namespace="other")["metadata"]["namespace"] == "other"


def test_an_older_clusters_token() -> None:
    pod = full_pod()
    pod["spec"]["volumes"][2] = {"name": "web-token-x7k2p", "secret": {"secretName": "x"}}
    pod["spec"]["containers"][0]["volumeMounts"][2]["name"] = "web-token-x7k2p"
    spec = made(pod)["spec"]
    assert len(spec["volumes"]) == len(spec["containers"][0]["volumeMounts"]) == 2


HOSTILE: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "no spec": (("spec",), None),
    "a spec that is a text": (("spec",), "x"),
    "no containers": (("spec", "containers"), []),
    "containers that are none": (("spec", "containers"), ["app"]),
    "containers by name": (("spec", "containers"), {"app": {}}),
    "mounts that are none": (("spec", "containers", 0, "volumeMounts"), [1]),
    "an environment that is none": (("spec", "containers", 0, "env"), "A=1"),
    "volumes that are none": (("spec", "volumes"), 7),
    "tolerations that are none": (("spec", "tolerations"), [None]),
    "init containers that are none": (("spec", "initContainers"), "x"),
    "metadata that is a list": (("metadata",), []),
    "labels that are a list": (("metadata", "labels"), ["app"]),
    "a label that is a number": (("metadata", "labels", "app"), 1),
    "annotations that are a text": (("metadata", "annotations"), "x"),
    "an annotation that is an object": (("metadata", "annotations", "a"), {}),
    "owners that are none": (("metadata", "ownerReferences"), "x"),
    "no name": (("metadata", "name"), None),
    "a path for a name": (("metadata", "name"), "../../nodes/a"),
    "another namespace": (("metadata", "namespace"), "kube-system"),
    "a namespace that is none": (("metadata", "namespace"), None),
    "an affinity that is none": (("spec", "affinity"), "x"),
    "an affinity to nodes that is none": (("spec", "affinity", "nodeAffinity"), []),
    "no terms": (("spec", "affinity", "nodeAffinity", TERM), {"nodeSelectorTerms": []}),
    "terms that are none": (("spec", "affinity", "nodeAffinity", TERM), {"nodeSelectorTerms": 1}),
    "fields that are none": (
        ("spec", "affinity", "nodeAffinity", TERM, "nodeSelectorTerms", 0, "matchFields"), "x",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("where", "value"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_pod(where: tuple[str | int, ...], value: object) -> None:
    pod = full_pod()
    place: Any = pod
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(InvalidArgument):
        made(pod, leave=HOME)


@pytest.mark.parametrize("name", [["a"], {"a": 1}, 7, None])
def test_names_that_are_no_texts_are_left_to_the_cluster(name: object) -> None:
    pod = full_pod()
    pod["spec"]["volumes"][0]["name"] = name
    container = pod["spec"]["containers"][0]
    container["volumeMounts"][0]["name"] = name
    container["env"][0]["name"] = name
    spec = made(pod)["spec"]
    assert spec["volumes"][0]["name"] == name
    assert spec["containers"][0]["volumeMounts"][0]["name"] == name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.data())
def test_whatever_it_is(data: st.DataObject) -> None:
    pod = full_pod()
    place: Any = pod
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    before = copy.deepcopy(pod)
    try:
        new = made(pod, leave=HOME)
    except InvalidArgument:
        return
    finally:
        assert pod == before
    # Whatever else it is, it does not go where nobody may put it.
    assert new["metadata"]["namespace"] == "shop"
    assert new["spec"]["runtimeClassName"] == "checkpoint-runc"
    assert "nodeName" not in new["spec"]


def test_a_cluster_does_not_take_the_original() -> None:
    """The server of the tests is as strict as what the function was written for."""
    pod, there = full_pod(), {"checkpoint-runc"}
    for field, complaint in {
        "runtimeClassName": "RuntimeClass",
        "overhead": "Overhead",
        "priority": "integer value of priority",
        "ephemeralContainers": "cannot be set on create",
    }.items():
        with pytest.raises(Refusal, match=complaint):
            admit(copy.deepcopy(pod), there)
        del pod["spec"][field]
    admit(pod, there)
