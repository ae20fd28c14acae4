"""Restores that wait for their pods, brought one step further: rows, a cluster, and no nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.database import Database
from agent.api.database import actions as table
from agent.api.database import pods as pods_table
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow
from agent.api.kept_pods import Keeper
from agent.api.metrics import ApiMetrics
from agent.api.pod_restores import PodRestores
from agent.cluster import Kubernetes
from agent.cluster.pods import Pods
from agent.events import Control
from agent.settings import Cluster, Nats
from tests.api_rows import caught_up, row
from tests.kubernetes_pods import small_pod
from tests.servers.kubernetes import KubernetesServer, kubernetes_server
from tests.servers.kubernetes_status import Refusal, conflict

# Seconds that a pod gets; what a test has hours ago is late.
PENDING = 600.0


class Restores:
    """One instance, whose rounds are the test's to begin."""

    def __init__(self, database: Database, server: KubernetesServer, pods: Pods) -> None:
        self.database, self.server = database, server
        self.control = Control(Nats(url="nats://127.0.0.1:1"), "api")
        keeper = Keeper(database, pods, "test")
        metrics = ApiMetrics("test")
        self.restores = PodRestores(database, self.control, metrics, pods, keeper, PENDING)

    def hear(self) -> None:
        """Have heard all nodes, for long enough."""
        self.control.nodes.steady_since = asyncio.get_running_loop().time() - 60

    async def take_over(self, until: float) -> None:
        """Have taken over what was said until so many seconds ago."""
        async with self.database.write() as session:
            await session.merge(caught_up(until))

    async def ask(self, upload: dict[str, Any] | None = None, **fields: Any) -> ActionRow:  # noqa: ANN401 - the columns'
        """A restore that waits, of a checkpoint of a pod."""
        pod = small_pod()
        kept = {"pod_spec": pod["spec"], "pod_metadata_spec": pod["metadata"]}
        given = {"pod_namespace": "default", "pod_name": "web", "path": "s3://bucket/x"}
        source = row(state="ready", upload=upload or kept, **given)
        made = row(
            type="restore_pod", node="", restored_from=source.action_id, handed_over=True,
            **{**given, **fields},
        )  # fmt: skip
        async with self.database.write() as session:
            session.add_all([source, made])
        return made

    async def round(self) -> None:
        """As `run` does, once."""
        async with self.database.read() as session:
            rows = await pods_table.waiting(session)
        await self.restores.see_to(rows)

    async def now(self, made: ActionRow) -> ActionRow:
        async with self.database.read() as session:
            found = await table.get(session, made.action_id)
        assert found is not None
        return found

    async def error(self, made: ActionRow) -> dict[str, Any]:
        """Why it has ended."""
        found = await self.now(made)
        assert found.state == "error"
        assert found.failure is not None
        return found.failure


@pytest.fixture
async def restores(database: Database, tmp_path: Path) -> AsyncIterator[Restores]:
    folder = tmp_path / "kubernetes"
    folder.mkdir()
    with kubernetes_server(folder) as server:
        settings = Cluster(in_cluster=True, service_account_dir=server.service_account())
        async with Kubernetes.connect(settings, server.environment) as kubernetes:
            made = Restores(database, server, Pods(kubernetes))
            # And all that is said during the test.
            await made.take_over(-3600)
            yield made
            server.stop()


async def test_a_quota_that_others_count_against_too(restores: Restores) -> None:
    restores.hear()
    changed = conflict("resourcequotas", "gpus", "the object has been modified")
    restores.server.fail("create", "pods", changed)
    made = await restores.ask()
    await restores.round()
    assert (await restores.now(made)).state == "initialized"
    await restores.round()
    assert (await restores.now(made)).pod_uid == restores.server.pod("default", "web")["metadata"][
        "uid"
    ]


async def test_a_cluster_that_is_away_is_said_once(
    restores: Restores, caplog: pytest.LogCaptureFixture
) -> None:
    made = await restores.ask()
    restores.server.stop()
    for _ in range(3):
        await restores.round()
    assert caplog.text.count("pod not seen to") == 1
    restores.server.start()
    await restores.round()
    assert (await restores.now(made)).pod_uid
    # And when it is away again.
    restores.hear()
    restores.server.stop()
    await restores.round()
    assert caplog.text.count("pod not seen to") == 2


async def test_one_that_another_instance_has_brought_to_its_end(restores: Restores) -> None:
    """Rows wait for their turn, for minutes at worst; meanwhile the pod has come and gone."""
    restores.hear()
    made = await restores.ask()
    async with restores.database.read() as session:
        stale = await pods_table.waiting(session)
    async with restores.database.write() as session:
        found = await table.get(session, made.action_id)
        assert found is not None
        found.state, found.node, found.pod_uid = "ready", "node-a", "gone-by-now"
    await restores.restores.see_to(stale)
    assert restores.server.count("create", "pods") == 0


async def test_while_nobody_is_heard_no_pod_is_gone(restores: Restores) -> None:
    made = await restores.ask()
    await restores.round()
    restores.server.store.remove("pods", "default", "web")
    await restores.round()
    assert (await restores.now(made)).state == "initialized"
    restores.hear()
    # Heard of, but a database that was away does not have it yet.
    await restores.take_over(20)
    await restores.round()
    assert (await restores.now(made)).state == "initialized"
    await restores.take_over(5)
    await restores.round()
    assert (await restores.error(made))["code"] == "pod_gone"


async def test_a_containers_own_words(restores: Restores) -> None:
    """Anything may be in its termination message, a character that no database keeps as well."""
    restores.hear()
    made = await restores.ask()
    await restores.round()
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": "a\0b\ud800"}}
    status = {"name": "app", "restartCount": 0, "state": ended}
    restores.server.set_status("default", "web", phase="Failed", containerStatuses=[status])
    await restores.round()
    error = await restores.error(made)
    assert error["code"] == "pod_not_started"
    assert "a\N{REPLACEMENT CHARACTER}b" in error["message"]


async def test_a_cluster_that_stumbles_when_its_time_is_up(restores: Restores) -> None:
    """Who hears of the error restores it again: nothing may be left that starts by itself."""
    restores.hear()
    made = await restores.ask()
    await restores.round()
    assert (await restores.now(made)).pod_uid
    async with restores.database.write() as session:
        found = await table.get(session, made.action_id)
        assert found is not None
        found.created -= int(PENDING * 1e6)
    for verb in ("get", "delete"):
        restores.server.fail(verb, "pods", Refusal(503, "ServiceUnavailable", "starting"))
        await restores.round()
        assert (await restores.now(made)).state == "initialized"
    await restores.round()
    error = await restores.error(made)
    assert error["code"] == "pod_not_started"
    assert restores.server.pods() == []
    # But not for ever.
    restores.server.stop()
    late = await restores.ask(created=now() - int((PENDING + 61) * 1e6))
    await restores.round()
    assert (await restores.error(late))["code"] == "cluster_unreachable"


async def test_one_that_came_too_late_has_no_pod(restores: Restores) -> None:
    made = await restores.ask(created=1)
    await restores.round()
    error = await restores.error(made)
    assert (error["code"], error["state"]) == ("pod_not_started", "no pod was created")


async def test_what_is_uploaded_while_it_waits_ends_that_one_only(restores: Restores) -> None:
    restores.hear()
    deep: dict[str, Any] = {}
    for _ in range(700):
        deep = {"a": deep}
    pod = small_pod()
    # It could not be uploaded, so nobody is prepared for it.
    odd = await restores.ask({"pod_spec": {**pod["spec"], "securityContext": deep}})
    wrong = await restores.ask({"pod_spec": {"containers": [{"name": ["app"]}], "volumes": [7]}})
    other = await restores.ask(pod_name="other")
    await restores.round()
    assert (await restores.error(odd))["code"] == "internal"
    assert (await restores.error(wrong))["code"] == "invalid_argument"
    assert (await restores.now(other)).pod_uid
