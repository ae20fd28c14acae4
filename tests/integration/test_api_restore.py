"""POST /v2/restore/pod: which checkpoint, on which node, and what reaches it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.messages.model import RestoreOverrides, RestoreSpec
from tests.api_nodes import Node, path_of, pod
from tests.api_rows import row
from tests.api_stages import Stage, accepted, put, timeline
from tests.http import Answer


@pytest.fixture
def cluster() -> str:
    """Of the test's own: other nodes are none that anything could be restored on."""
    return f"c-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def three(sqlite_stage: Stage, cluster: str) -> Iterator[list[Node]]:
    """Nodes with two, three and one pods."""
    sqlite_stage.api.wait_ready()
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                sqlite_stage.node(
                    *(pod(f"web-{each}") for each in range(pods)),
                    node={"cluster": cluster, "name": f"{cluster}-{pods}"},
                    name=f"{cluster}-{pods}",
                )
            )
            for pods in (2, 3, 1)
        ]


def restore(stage: Stage, action_id: str, reason: str = "manual", **body: object) -> str:
    asked = {"action_id": action_id, "reason": reason, **body}
    return accepted(stage.api, "restore", asked)


def refused(stage: Stage, action_id: str, **body: object) -> Answer:
    asked = {"action_id": action_id, "reason": "manual", **body}
    return stage.api.post("/v2/restore/pod", asked)


def node_of(stage: Stage, action_id: str) -> str:
    done = stage.api.wait_state(action_id, "ready", "error")
    assert done["status"] == "ready", done
    return str(done["node_name"])


def test_a_checkpoint_is_restored_where_it_comes_from(stage: Stage) -> None:
    web = pod("web", "shop")
    overrides = {"criu_opts": '{"tcp_close": true}', "pod_name": "web-2"}
    with stage.node(web) as node, stage.node():
        checkpoint = stage.ready(web)
        action_id = restore(stage, checkpoint, overrides=overrides)
        done = stage.api.wait_state(action_id, "ready", "error")
        spec = node.engine.asked[action_id].spec
    assert spec == RestoreSpec(
        path_of(checkpoint),
        "manual",
        overrides=RestoreOverrides('{"tcp_close": true}', "web-2"),
    )
    assert (done["status"], done["type"], done["node_name"]) == ("ready", "restore_pod", node.name)
    assert (done["checkpoint_id"], done["platform"]) == (checkpoint, "debian-13")
    assert done["details"]["restored_from"] == checkpoint
    assert done["details"]["path"] == path_of(checkpoint)
    assert done["details"]["pod"]["namespace"] == "shop"
    assert done["details"]["request"]["overrides"] == overrides
    assert timeline(done) == ["initialized", "processing", "ready"]
    assert done["total_duration"] == 200_000_000
    # It is not what a later restore would be of, nor another checkpoint of that name.
    path = stage.api.get("/v2/checkpoint/path?name=shop/web/app").text
    assert path == path_of(checkpoint)


def test_what_cannot_be_restored(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web, open_gate=False) as node:
        checkpoint = stage.checkpoint(web)
        early = stage.api.wait_state(checkpoint, "checkpoint_created")
        assert early["status"] == "checkpoint_created"
        answer = refused(stage, checkpoint)
        assert answer.status == 400
        assert "not ready: it is checkpoint_created" in answer.json()["message"]
        node.let_go()
        stage.api.wait_state(checkpoint, "ready")
        of_restore = restore(stage, checkpoint)
        stage.api.wait_state(of_restore, "ready")
        answer = refused(stage, of_restore)
        assert answer.status == 400
        assert "not of a checkpoint" in answer.json()["message"]
        for overrides in ({"criu_opts": "{"}, {"criu_opts": '{"x": 1}'}, {"pod_name": "a\nb"}):
            answer = refused(stage, checkpoint, overrides=overrides)
            assert answer.status == 400
            assert f"overrides.{next(iter(overrides))}" in answer.json()["message"]
        assert refused(stage, checkpoint, cluster_id="a\nb").status == 400
        assert refused(stage, checkpoint, reason="foo").status == 400
        assert node.engine.runs == [checkpoint, of_restore]


def test_what_has_failed_cannot_be_restored(sqlite_stage: Stage) -> None:
    gone = pod("gone", uid=f"unknown-{uuid.uuid4()}")
    with sqlite_stage.node(gone):
        checkpoint = sqlite_stage.checkpoint(gone)
        sqlite_stage.api.wait_state(checkpoint, "error")
        answer = refused(sqlite_stage, checkpoint)
        assert answer.status == 400
        assert "not ready: it is error" in answer.json()["message"]


def test_it_goes_home_unless_home_is_to_be_left(sqlite_stage: Stage, three: list[Node]) -> None:
    two, _, one = three
    checkpoint = sqlite_stage.ready(two.agent.pods[0])
    assert node_of(sqlite_stage, restore(sqlite_stage, checkpoint)) == two.name
    for reason in ("nodeTermination", "nodeUnschedulable"):
        # None of them does anything: the one with the fewest pods.
        action_id = restore(sqlite_stage, checkpoint, reason)
        assert node_of(sqlite_stage, action_id) == one.name
        spec = one.engine.asked[action_id].spec
        assert spec.reason == reason
    elsewhere = sqlite_stage.ready(one.agent.pods[0])
    action_id = restore(sqlite_stage, elsewhere, "nodeTermination")
    assert node_of(sqlite_stage, action_id) == two.name


def test_a_node_that_has_gone_is_not_home_any_more(sqlite_stage: Stage, cluster: str) -> None:
    settings = {"cluster": cluster, "name": f"{cluster}-new"}
    checkpoint = row(
        state="ready", cluster=cluster, node=f"{cluster}-old", path="memory:/x", handed_over=True
    )
    put(sqlite_stage.api, checkpoint)
    answer = refused(sqlite_stage, checkpoint.action_id)
    assert answer.status == 500
    # The contract's words.
    assert answer.json()["message"].startswith("failed to create restore")
    assert cluster in answer.json()["message"]
    with sqlite_stage.node(node=settings, name=settings["name"]) as node:
        action_id = restore(sqlite_stage, checkpoint.action_id)
        assert node_of(sqlite_stage, action_id) == node.name
        # It is another one, so there is no reason to spare it.
        away = restore(sqlite_stage, checkpoint.action_id, "nodeTermination")
        assert node_of(sqlite_stage, away) == node.name


def test_the_last_node_cannot_be_left(stage: Stage, cluster: str) -> None:
    web = pod("web")
    settings = {"cluster": cluster, "name": cluster}
    with stage.node(web, node=settings, name=cluster) as node:
        checkpoint = stage.ready(web)
        before = stage.api.get("/v2/actions").json()
        answer = refused(stage, checkpoint, reason="nodeTermination")
        assert answer.status == 500
        assert answer.json()["message"].startswith("failed to create restore")
        assert node.name in answer.json()["message"]
        assert stage.api.get("/v2/actions").json() == before


def test_another_cluster_may_be_asked_for(sqlite_stage: Stage, three: list[Node]) -> None:
    web = pod("web")
    with sqlite_stage.node(web):
        checkpoint = sqlite_stage.ready(web)
        cluster = three[0].agent.settings.node.cluster
        action_id = restore(sqlite_stage, checkpoint, cluster_id=cluster)
        assert node_of(sqlite_stage, action_id) == three[2].name
        detail = sqlite_stage.api.get(f"/v2/actions/{action_id}").json()
        assert detail["details"]["cluster"] == cluster
        answer = refused(sqlite_stage, checkpoint, cluster_id="nowhere")
        assert answer.status == 500
        assert "'nowhere'" in answer.json()["message"]
