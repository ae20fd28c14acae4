"""Restores for which Kubernetes makes a pod: asked for over HTTP, reported by its node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from agent.messages.model import Failure, State
from tests.api_clusters import Clustered, clustered_on
from tests.api_nodes import pod as pod_of_node
from tests.api_servers import postgres_settings
from tests.api_stages import timeline
from tests.kubernetes_pods import full_pod, small_pod
from tests.servers.kubernetes_status import Refusal, denied
from tests.servers.nats import nats_server
from tests.servers.postgres import PostgresServer
from tests.waiting import eventually


@pytest.fixture(scope="module")
def sqlite_clustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    folder = tmp_path_factory.mktemp("sqlite")
    with nats_server(folder) as broker, clustered_on(broker, folder) as made:
        yield made


@pytest.fixture(scope="module")
def postgres_clustered(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Clustered]:
    folder = tmp_path_factory.mktemp("postgres")
    url = postgres.new_database()
    tables, env = postgres_settings(url, postgres.password)
    with (
        nats_server(folder) as broker,
        clustered_on(broker, folder, tables=tables, env=env) as made,
    ):
        yield made
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def clustered(request: pytest.FixtureRequest) -> Iterator[Clustered]:
    """On either, in a namespace of the test's own."""
    shared: Clustered = request.getfixturevalue(f"{request.param}_clustered")
    shared.stage.api.wait_ready()
    kubernetes = shared.kubernetes
    yield Clustered(shared.stage, kubernetes)
    kubernetes.denied.clear()
    kubernetes.admission.clear()
    kubernetes.faults.clear()
    kubernetes.runtime_classes = {"checkpoint-runc"}
    kubernetes.store.graceful = False


def test_a_pod_is_made_and_restored(clustered: Clustered) -> None:
    source = clustered.checkpoint()
    action_id = clustered.restore(source)
    eventually(clustered.has_pod, "the pod")
    made = clustered.pod()
    assert made["metadata"]["annotations"] == {
        "checkpoint-agent/restore": source.path,
        "checkpoint-agent/restore-action": action_id,
    }
    assert made["spec"]["runtimeClassName"] == "checkpoint-runc"
    assert "nodeName" not in made["spec"]
    api = clustered.stage.api
    waiting = api.get(f"/v2/actions/{action_id}").json()
    assert (waiting["status"], waiting["node_name"]) == ("initialized", None)
    clustered.report(action_id, 1, State.PROCESSING)
    api.wait_state(action_id, "processing")
    clustered.finish(action_id)
    done = api.wait_state(action_id, "ready", "error")
    assert (done["status"], done["node_name"]) == ("ready", "node-b")
    assert timeline(done) == ["initialized", "processing", "ready"]
    uid = made["metadata"]["uid"]
    assert done["details"]["pod"] == {"uid": uid, "namespace": clustered.namespace, "name": "web"}
    assert api.get(f"/v2/actions/from_pod/{uid}").text == action_id
    # The old one's is still its checkpoint.
    assert api.get(f"/v2/actions/from_pod/{source.pod_uid}").text == source.action_id


def test_a_node_that_cannot_restore_it_says_so(clustered: Clustered) -> None:
    action_id = clustered.restore(clustered.checkpoint())
    eventually(clustered.has_pod, "the pod")
    failure = Failure("restore_failed", "restore of web failed: criu")
    clustered.report(action_id, 1, State.ERROR, failure=failure)
    assert clustered.error(action_id)["code"] == "restore_failed"


def test_another_name(clustered: Clustered) -> None:
    source = clustered.checkpoint()
    action_id = clustered.restore(source, overrides={"pod_name": "again"})
    eventually(lambda: clustered.has_pod("again"), "the pod")
    assert not clustered.has_pod("web")
    detail = clustered.stage.api.get(f"/v2/actions/{action_id}").json()
    assert detail["details"]["pod"]["name"] == "again"


def test_what_is_asked_for_twice_is_one_pod(clustered: Clustered) -> None:
    source = clustered.checkpoint()
    body = {"action_id": source.action_id, "reason": "manual"}
    answers = [clustered.stage.api.post("/v2/restore/pod", body, key="k") for _ in range(3)]
    assert len({each.text for each in answers}) == 1
    eventually(clustered.has_pod, "the pod")
    assert len(clustered.kubernetes.pods(clustered.namespace)) == 1


def test_where_it_may_go(clustered: Clustered) -> None:
    home = "ip-10-0-0-1.ec2.internal"
    kept = full_pod()
    kept["metadata"]["namespace"] = clustered.namespace
    upload = {"pod_spec": kept["spec"], "pod_metadata_spec": kept["metadata"]}

    def fields(name: str, path: str, reason: str) -> object:
        source = clustered.checkpoint(upload=upload, path=path, node=home.replace(".", "_"))
        clustered.restore(source, reason, overrides={"pod_name": name})
        eventually(lambda: clustered.has_pod(name), name)
        required = clustered.pod(name)["spec"]["affinity"]["nodeAffinity"]
        (terms,) = (each["nodeSelectorTerms"] for each in required.values())
        assert len(terms) == 2
        return terms[0].get("matchFields"), terms[1].get("matchFields")

    away = [{"key": "metadata.name", "operator": "NotIn", "values": [home]}]
    only = [{"key": "metadata.name", "operator": "In", "values": [home]}]
    assert fields("a", "s3://bucket/x", "manual") == (None, None)
    assert fields("b", "s3://bucket/x", "nodeTermination") == (away, away)
    assert fields("c", "gs://bucket/x", "nodeUnschedulable") == (away, away)
    assert fields("d", "file:///var/lib/x", "manual") == (only, only)
    lost = clustered.checkpoint(upload=upload, path="/var/lib/x")
    body = {"action_id": lost.action_id, "reason": "nodeTermination"}
    answer = clustered.stage.api.post("/v2/restore/pod", body)
    assert answer.status == 400
    assert "on the disk of node" in answer.json()["message"]


def test_a_kept_pod_that_is_none(clustered: Clustered) -> None:
    """Whoever has uploaded it hears of it at once, and nothing is begun."""
    before = clustered.stage.api.get("/v2/actions").json()
    other = small_pod(namespace="kube-system")["metadata"]
    spec = small_pod()["spec"]
    uploads = {
        "pod_spec.containers": {"pod_spec": {"nodeName": "node-7"}},
        "pod_metadata_spec.namespace": {"pod_spec": spec, "pod_metadata_spec": other},
        "pod_metadata_spec": {"pod_spec": spec, "pod_metadata_spec": [1]},
    }
    sources = {field: clustered.checkpoint(upload=upload) for field, upload in uploads.items()}
    for field, source in sources.items():
        body = {"action_id": source.action_id, "reason": "manual"}
        answer = clustered.stage.api.post("/v2/restore/pod", body)
        assert (answer.status, answer.json()["details"]["argument"]) == (400, field)
    body = {**body, "action_id": clustered.checkpoint().action_id}
    overrides = {"criu_opts": '{"tcp_close": true}'}
    answer = clustered.stage.api.post("/v2/restore/pod", {**body, "overrides": overrides})
    assert (answer.status, answer.json()["details"]["argument"]) == (400, "overrides.criu_opts")
    added = len(sources) + 1
    assert len(clustered.stage.api.get("/v2/actions?limit=1000").json()) == len(before) + added
    assert clustered.kubernetes.pods(clustered.namespace) == []


def test_a_pod_of_that_name_is_left_alone(clustered: Clustered) -> None:
    there = clustered.kubernetes.put_pod(small_pod(namespace=clustered.namespace))
    error = clustered.error(clustered.restore(clustered.checkpoint()))
    assert error["code"] == "cluster_refused"
    assert "already exists" in error["message"]
    assert "overrides.pod_name" in error["hint"]
    assert error["details"]["reason"] == "AlreadyExists"
    assert clustered.pod() == there


def test_a_pod_of_that_name_that_is_going_is_waited_for(sqlite_clustered: Clustered) -> None:
    """A drained pod has half a minute to go, and its restore is asked for before that."""
    clustered = replace(sqlite_clustered, namespace="going")
    clustered.kubernetes.put_pod(small_pod(namespace="going"))
    clustered.kubernetes.store.graceful = True
    clustered.kubernetes.store.remove("pods", "going", "web")
    tries = clustered.kubernetes.count("create", "pods")
    action_id = clustered.restore(clustered.checkpoint())
    eventually(lambda: clustered.kubernetes.count("create", "pods") > tries, "a first try")
    assert clustered.stage.api.state_of(action_id) == "initialized"
    clustered.kubernetes.store.remove("pods", "going", "web", now=True)
    eventually(clustered.has_pod, "the new pod")
    clustered.kubernetes.store.graceful = False
    assert clustered.pod()["metadata"]["annotations"]["checkpoint-agent/restore-action"] == (
        action_id
    )


def test_what_the_cluster_refuses(clustered: Clustered) -> None:
    kubernetes = clustered.kubernetes

    def refused(**fields: object) -> tuple[str, str]:
        error = clustered.error(clustered.restore(clustered.checkpoint(**fields)))
        assert error["code"] == "cluster_refused"
        return error["message"], error["hint"]

    kubernetes.pod_quota[clustered.namespace] = 0
    message, hint = refused()
    assert "exceeded quota" in message
    assert "quota" in hint
    del kubernetes.pod_quota[clustered.namespace]

    invalid = {"containers": [{"name": "app"}]}
    message, hint = refused(upload={"pod_spec": invalid})
    assert "spec.containers[0].image: Required value" in message
    assert "upload" in hint

    def deny(_pod: object) -> None:
        raise denied("policy.example", "pods need an owner")

    kubernetes.admission.append(deny)
    message, hint = refused()
    assert "pods need an owner" in message
    assert "policy" in hint
    kubernetes.admission.clear()

    kubernetes.runtime_classes = set()
    assert 'RuntimeClass "checkpoint-runc" not found' in refused()[0]
    kubernetes.runtime_classes = {"checkpoint-runc"}

    kubernetes.denied.add(("create", "pods"))
    message, hint = refused()
    assert 'cannot create resource "pods"' in message
    assert "docs/kubernetes.md" in hint
    kubernetes.denied.clear()

    gone = {"pod_namespace": "gone", "upload": {"pod_spec": small_pod()["spec"]}}
    message, hint = refused(**gone)
    assert 'namespaces "gone" not found' in message
    assert "namespace" in hint
    assert kubernetes.pods(clustered.namespace) == []


def test_a_server_that_stumbles(sqlite_clustered: Clustered) -> None:
    clustered = replace(sqlite_clustered, namespace="stumbles")
    # The first is done and not heard of, the second comes too early.
    clustered.kubernetes.fail("create", "pods", None, done=True)
    action_id = clustered.restore(clustered.checkpoint())
    eventually(clustered.has_pod, "the pod")
    uid = clustered.pod()["metadata"]["uid"]
    detail = f"/v2/actions/{action_id}"
    api = clustered.stage.api
    eventually(lambda: api.get(detail).json()["details"]["pod"]["uid"] == uid, "it being found")
    too_early = Refusal(429, "TooManyRequests", "slow down", retry_after=1)
    clustered.kubernetes.fail("create", "pods", too_early)
    other = clustered.restore(clustered.checkpoint(), overrides={"pod_name": "other"})
    eventually(lambda: clustered.has_pod("other"), "the pod")
    assert api.state_of(other) == "initialized"
    assert len(clustered.kubernetes.pods("stumbles")) == 2


def test_without_anything_kept_a_node_restores_by_itself(clustered: Clustered) -> None:
    web = pod_of_node(namespace=clustered.namespace)
    with clustered.stage.node(web) as node:
        action_id = clustered.stage.ready(web)
        source = {"action_id": action_id, "reason": "manual"}
        answer = clustered.stage.api.post("/v2/restore/pod", source)
        clustered.stage.api.wait_state(answer.text, "ready")
        assert answer.text in node.engine.asked
        # And so where it is asked for in another cluster.
        other = clustered.stage.api.post("/v2/restore/pod", {**source, "cluster_id": "other"})
        assert other.json()["details"]["code"] == "no_node"


def test_a_pod_is_kept_when_its_checkpoint_begins(clustered: Clustered) -> None:
    there = small_pod(namespace=clustered.namespace)
    there["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    there = clustered.kubernetes.put_pod(there)
    web = pod_of_node(namespace=clustered.namespace, uid=there["metadata"]["uid"])
    api = clustered.stage.api
    with clustered.stage.node(web):
        action_id = clustered.stage.ready(web)
        eventually(lambda: api.get(f"/v2/actions/{action_id}").json()["pod_spec"], "it being kept")
        detail = api.get(f"/v2/actions/{action_id}").json()
        assert detail["pod_spec"] == there["spec"]
        assert "managedFields" not in detail["pod_metadata_spec"]
        # The next one is of the same pod, and need not have it twice.
        again = clustered.stage.ready(web)
        uploaded = {"status": "", "pod_metadata_spec": {"name": "web", "labels": {"a": "b"}}}
        api.post("/v2/actions/upload", {**uploaded, "action_id": action_id})
        clustered.kubernetes.store.remove("pods", clustered.namespace, "web")
        assert api.get(f"/v2/actions/{again}").json()["pod_spec"] is None
        # Its store is in memory, and so the node's own.
        clustered.stage.api.post("/v2/restore/pod", {"action_id": again, "reason": "manual"})
        eventually(clustered.has_pod, "the pod")
    # What was uploaded goes before what was read.
    assert clustered.pod()["metadata"]["labels"] == {"a": "b", "checkpoint-agent/restored": "true"}


def test_a_pod_that_is_another_one_by_now_is_not_kept(clustered: Clustered) -> None:
    clustered.kubernetes.put_pod(small_pod(namespace=clustered.namespace))
    web = pod_of_node(namespace=clustered.namespace)
    reads = clustered.kubernetes.count("get", "pods")
    with clustered.stage.node(web):
        action_id = clustered.stage.ready(web)
        eventually(lambda: clustered.kubernetes.count("get", "pods") > reads, "a look at it")
        time.sleep(0.2)
        assert clustered.stage.api.get(f"/v2/actions/{action_id}").json()["pod_spec"] is None


def test_secrets_are_not_told(sqlite_clustered: Clustered) -> None:
    clustered = replace(sqlite_clustered, namespace="secrets")
    spec = small_pod()["spec"]
    spec["containers"][0]["env"] = [{"name": "PASSWORD", "value": "hunter22"}]
    clustered.restore(clustered.checkpoint(upload={"pod_spec": spec}))
    eventually(clustered.has_pod, "the pod")
    log = clustered.stage.api.log.read_text()
    assert "hunter22" not in log
    assert clustered.kubernetes.token not in log
