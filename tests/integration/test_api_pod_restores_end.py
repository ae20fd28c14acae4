"""Restores whose pod never comes to a node, or whose API dies: none stays open, none is doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.messages.model import State
from tests.api_clusters import Clustered, clustered_on
from tests.api_servers import api_in, postgres_settings
from tests.daemons import Tables
from tests.kubernetes_pods import small_pod
from tests.servers.nats import NatsServer, nats_server
from tests.servers.postgres import PostgresServer
from tests.waiting import eventually

# Seconds that a pod gets.
PENDING = 2.0


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """Of the module: an API that waits for no pod."""
    folder = tmp_path_factory.mktemp("hasty")
    with nats_server(folder) as broker, clustered_on(broker, folder, PENDING) as made:
        yield made


@pytest.fixture
def soon(hasty: Clustered) -> Iterator[Clustered]:
    """The same, in a namespace of the test's own."""
    hasty.stage.api.wait_ready()
    yield Clustered(hasty.stage, hasty.kubernetes)
    hasty.kubernetes.denied.clear()
    hasty.kubernetes.on_pod_created.clear()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """Of the module: an API that waits, and that tests may kill as long as they start it again."""
    folder = tmp_path_factory.mktemp("patient")
    with nats_server(folder) as broker, clustered_on(broker, folder) as made:
        yield made


@pytest.fixture
def own(patient: Clustered) -> Clustered:
    """The same, in a namespace of the test's own."""
    patient.stage.api.wait_ready()
    return Clustered(patient.stage, patient.kubernetes)


def begun(clustered: Clustered) -> str:
    """A restore that has its pod; the action's id."""
    action_id = clustered.restore(clustered.checkpoint())
    eventually(clustered.has_pod, "the pod")
    return action_id


def asked_for_pod(clustered: Clustered) -> bool:
    """Whether the cluster was asked to make a pod in the test's namespace."""
    path = f"/api/v1/namespaces/{clustered.namespace}/pods"
    return ("create", "pods", path) in clustered.kubernetes.requests


def test_a_pod_that_fits_nowhere(soon: Clustered) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    soon.when_created(lambda: soon.kubernetes.set_unschedulable(soon.namespace, "web", message))
    error = soon.error(soon.restore(soon.checkpoint()))
    assert error["code"] == "pod_not_started"
    assert f"Unschedulable: {message}" in error["message"]
    assert "deleted" in error["state"]
    assert not soon.has_pod()


def test_a_pod_whose_image_is_missing(soon: Clustered) -> None:
    waiting = 'Back-off pulling image "busybox"'

    def pull() -> None:
        soon.kubernetes.set_waiting(soon.namespace, "web", "ImagePullBackOff", waiting)
        soon.kubernetes.warn(soon.pod(), "Failed", "no such host: registry.example")

    soon.when_created(pull)
    error = soon.error(soon.restore(soon.checkpoint()))
    assert f"container app: ImagePullBackOff: {waiting}" in error["message"]
    assert "Failed: no such host: registry.example" in error["message"]
    assert not soon.has_pod()


def test_events_are_not_needed(soon: Clustered) -> None:
    soon.kubernetes.denied.add(("list", "events"))
    error = soon.error(soon.restore(soon.checkpoint()))
    assert "its phase is Pending" in error["message"]


def test_a_pod_that_runs_is_not_deleted(soon: Clustered) -> None:
    """Its node may only not be heard."""
    soon.when_created(lambda: soon.kubernetes.set_running(soon.namespace, "web"))
    error = soon.error(soon.restore(soon.checkpoint()))
    assert error["code"] == "pod_not_started"
    assert "left" in error["state"]
    assert soon.has_pod()


def test_a_pod_that_may_not_be_deleted(soon: Clustered) -> None:
    soon.kubernetes.denied.add(("delete", "pods"))
    error = soon.error(soon.restore(soon.checkpoint()))
    assert 'cannot delete resource "pods"' in error["message"]
    assert "left" in error["state"]
    assert soon.has_pod()


def test_a_pod_that_is_evicted(soon: Clustered) -> None:
    told = {"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}
    soon.when_created(lambda: soon.kubernetes.set_status(soon.namespace, "web", **told))
    error = soon.error(soon.restore(soon.checkpoint()))
    assert "Evicted: disk pressure" in error["message"]
    assert soon.has_pod()


def test_a_pod_that_somebody_deletes(soon: Clustered) -> None:
    def replaced() -> None:
        soon.kubernetes.store.remove("pods", soon.namespace, "web")
        # Another one of that name is another one.
        soon.kubernetes.put_pod(small_pod(namespace=soon.namespace))

    soon.when_created(replaced)
    assert soon.error(soon.restore(soon.checkpoint()))["code"] == "pod_gone"
    assert soon.has_pod()


def test_a_pod_that_a_node_has_taken_has_its_time(soon: Clustered) -> None:
    def taken() -> None:
        action_id = soon.pod()["metadata"]["annotations"]["checkpoint-agent/restore-action"]
        soon.report(action_id, 1, State.PROCESSING, "slow")

    soon.when_created(taken)
    with soon.stage.node(name="slow", node={"cluster": "test", "name": "slow"}):
        action_id = soon.restore(soon.checkpoint())
        soon.stage.api.wait_state(action_id, "processing")
        time.sleep(2 * PENDING)
        assert soon.stage.api.state_of(action_id) == "processing"
        soon.finish(action_id, "slow")
        soon.stage.api.wait_state(action_id, "ready")


def test_a_cluster_that_stays_away(soon: Clustered) -> None:
    soon.kubernetes.stop()
    try:
        error = soon.error(soon.restore(soon.checkpoint()))
    finally:
        soon.kubernetes.start()
    assert error["code"] == "cluster_unreachable"
    assert f"{soon.namespace}/web" in error["message"]
    # What was given up is not made when it is back. The other one's pod may be gone again before
    # anybody has looked for it: it waits for no node either.
    other = Clustered(soon.stage, soon.kubernetes)
    other.restore(other.checkpoint())
    eventually(lambda: asked_for_pod(other), "the other one's pod")
    assert not asked_for_pod(soon)


def test_a_cluster_that_comes_back(own: Clustered) -> None:
    own.kubernetes.stop()
    action_id = own.restore(own.checkpoint())
    time.sleep(0.5)
    assert own.stage.api.state_of(action_id) == "initialized"
    own.kubernetes.start()
    eventually(own.has_pod, "the pod")
    own.finish(action_id)
    own.stage.api.wait_state(action_id, "ready")


def test_an_api_that_is_killed_before_the_pod_is_made(own: Clustered) -> None:
    own.kubernetes.stop()
    action_id = own.restore(own.checkpoint())
    own.stage.api.kill()
    own.kubernetes.start()
    own.stage.api.start()
    eventually(own.has_pod, "the pod")
    own.finish(action_id)
    own.stage.api.wait_state(action_id, "ready")


def test_an_api_that_is_killed_before_it_hears_of_the_pod(own: Clustered) -> None:
    # It is made, and nobody hears of it: neither this API, nor before it is killed.
    own.kubernetes.fail("create", "pods", None, done=True)
    action_id = own.restore(own.checkpoint())
    eventually(own.has_pod, "the pod")
    own.stage.api.kill()
    uid = own.pod()["metadata"]["uid"]
    own.stage.api.start()
    api = own.stage.api
    detail = f"/v2/actions/{action_id}"
    eventually(lambda: api.get(detail).json()["details"]["pod"]["uid"] == uid, "it being found")
    assert len(own.kubernetes.pods(own.namespace)) == 1
    own.finish(action_id)
    assert api.wait_state(action_id, "ready", "error")["status"] == "ready"


def test_another_instance_goes_on(
    broker: NatsServer, tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    tables, env = postgres_settings(url, postgres.password)
    with clustered_on(broker, tmp_path, tables=tables, env=env) as one:
        folder = tmp_path / "other"
        folder.mkdir()
        given: Tables = {
            **tables,
            "cluster": one.stage.api.tables["cluster"],
            "node": {"cluster": "test"},
        }
        env = {**env, **one.kubernetes.environment}
        with api_in(folder, broker.url, given, env) as other:
            other.wait_ready()
            one.kubernetes.stop()
            action_id = one.restore(one.checkpoint())
            one.stage.api.kill()
            one.kubernetes.start()
            eventually(one.has_pod, "the pod")
            one.finish(action_id)
            other.wait_state(action_id, "ready")
            assert len(one.kubernetes.pods(one.namespace)) == 1
    postgres.drop_database(url)


def test_a_token_that_is_replaced(own: Clustered) -> None:
    token = Path(str(own.stage.api.tables["cluster"]["service_account_dir"])) / "token"
    own.kubernetes.tokens = {"the-next-one"}
    error = own.error(own.restore(own.checkpoint(), overrides={"pod_name": "early"}))
    assert error["details"]["status"] == 401
    token.write_text("the-next-one\n")
    own.restore(own.checkpoint(), overrides={"pod_name": "later"})
    eventually(lambda: own.has_pod("later"), "the pod")
    assert "the-next-one" not in own.stage.api.log.read_text()


def test_a_broker_that_is_away_ends_nobodys_time(soon: Clustered) -> None:
    soon.when_created(soon.stage.broker.kill)
    action_id = begun(soon)
    try:
        time.sleep(2 * PENDING)
        assert soon.stage.api.state_of(action_id) == "initialized"
        assert soon.has_pod()
    finally:
        soon.stage.broker.start()
    soon.stage.api.wait_ready()
    soon.finish(action_id)
    soon.stage.api.wait_state(action_id, "ready")
