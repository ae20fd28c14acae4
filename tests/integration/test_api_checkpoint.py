"""POST /v2/checkpoint/pod: which pod is meant, what reaches its node, and what comes of it."""

from __future__ import annotations

import base64
import json

import pytest

from agent.messages.model import CheckpointOverrides, CheckpointSpec
from agent.targets import Kind, PodRef
from tests.api_nodes import path_of, pod
from tests.api_servers import is_action_id
from tests.api_stages import Stage, accepted, nodes_of
from tests.servers.jetstream import Api as JetStream
from tests.waiting import eventually


def test_a_checkpoint_is_asked_for_and_becomes_ready(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web) as node:
        answer = stage.api.post("/v2/checkpoint/pod", {"pod_id": web.ref.uid})
        assert answer.status == 200
        # Bare, as the contract has it: no quotes, no line's end.
        assert is_action_id(answer.text)
        assert answer.headers.get_content_type() == "text/plain"
        action_id = answer.text
        done = stage.api.wait_state(action_id, "ready", "error")
    assert node.engine.runs == [action_id]
    assert {key: done[key] for key in ("status", "type", "reason", "node_name", "platform")} == {
        "status": "ready",
        "type": "checkpoint_pod",
        "reason": "manual",
        "node_name": node.name,
        "platform": "debian-13",
    }
    assert done["checkpoint_id"] == action_id
    assert done["total_duration"] == 200_000_000
    assert done["total_io"] == 1024
    assert done["action_timestamp"] < done["checkpoint_completed_timestamp"]
    details = done["details"]
    assert details["pod"] == {"uid": web.ref.uid, "namespace": "default", "name": "web"}
    assert (details["cluster"], details["kind"], details["error"]) == ("test", "simple", None)
    assert details["path"] == path_of(action_id)
    assert details["request"] == {"pod_id": web.ref.uid}
    status = stage.api.get(f"/v2/checkpoint/status/{action_id}").json()
    assert status == {"status": "ready", "details": None}


def test_all_that_was_asked_for_reaches_the_node(sqlite_stage: Stage) -> None:
    web = pod("web")
    overrides = {
        "asynchronous": True,
        "compression": "lz4",
        "criu_opts": '{"tcp_established": true}',
        "directory": "s3://bucket/dir",
        "streams": 7,
    }
    with sqlite_stage.node(web) as node:
        action_id = sqlite_stage.ready(
            web, kind="rootfs", reason="heartbeat", overrides=overrides, action_id="ignored"
        )
        spec = node.engine.asked[action_id].spec
    assert spec == CheckpointSpec(
        PodRef(web.ref.uid, "default", "web"),
        Kind.ROOTFS,
        "heartbeat",
        None,
        CheckpointOverrides(True, "lz4", '{"tcp_established": true}', "s3://bucket/dir", 7),
    )
    detail = sqlite_stage.api.get(f"/v2/actions/{action_id}").json()
    assert detail["details"]["request"] == {
        "kind": "rootfs",
        "overrides": overrides,
        "pod_id": web.ref.uid,
        "reason": "heartbeat",
    }
    assert (detail["reason"], detail["details"]["kind"]) == ("heartbeat", "rootfs")


@pytest.mark.parametrize(
    "overrides",
    [None, {}, {"streams": 0}, {"compression": None, "criu_opts": "", "directory": ""}],
    ids=str,
)
def test_what_is_not_given_is_left_to_the_node(
    sqlite_stage: Stage, overrides: dict[str, object] | None
) -> None:
    web = pod("web")
    with sqlite_stage.node(web) as node:
        action_id = sqlite_stage.ready(web, overrides=overrides)
        spec = node.engine.asked[action_id].spec
    assert isinstance(spec, CheckpointSpec)
    assert spec.overrides == CheckpointOverrides()


def test_the_message_is_a_plain_one_with_the_action_as_its_id(sqlite_stage: Stage) -> None:
    web = pod("web")
    with sqlite_stage.node(web, open_gate=False) as node:
        action_id = sqlite_stage.checkpoint(web)
        subject = f"actions.test.{node.name}.checkpoint"
        # A work queue has it until the node has answered.
        with JetStream(sqlite_stage.broker.port) as broker:
            asked = {"last_by_subj": subject}
            message = broker.ask("STREAM.MSG.GET.ACTIONS", asked)["message"]
        node.let_go()
    assert f"Nats-Msg-Id: {action_id}" in base64.b64decode(message["hdrs"]).decode()
    assert json.loads(base64.b64decode(message["data"])) == {
        "actionId": action_id,
        "checkpoint": {"pod": {"uid": web.ref.uid, "namespace": "default", "name": "web"}},
    }


def test_a_pod_is_found_by_any_name_that_says_enough(sqlite_stage: Stage) -> None:
    here, there = pod("by-name", "one"), pod("by-name", "two")
    alone = pod("alone", "three")
    with sqlite_stage.node(here, alone) as first, sqlite_stage.node(there) as second:
        for body, node, wanted in (
            ({"pod_name": "by-name", "namespace": "one"}, first, here),
            ({"pod_name": "by-name", "namespace": "two"}, second, there),
            ({"pod_name": "alone"}, first, alone),
            ({"pod_id": there.ref.uid, "pod_name": "by-name"}, second, there),
            ({"pod_name": "alone", "cluster_id": "test"}, first, alone),
            ({"pod_name": "alone", "cluster_id": ""}, first, alone),
        ):
            action_id = accepted(sqlite_stage.api, "checkpoint", body)
            sqlite_stage.api.wait_state(action_id, "ready")
            spec = node.engine.asked[action_id].spec
            assert isinstance(spec, CheckpointSpec)
            ref = wanted.ref
            assert spec.target == PodRef(ref.uid, ref.namespace, ref.name)


def test_a_cluster_tells_pods_of_one_name_apart(sqlite_stage: Stage) -> None:
    blue, green = pod("twin", "same"), pod("twin", "same")
    settings = [{"cluster": "blue", "name": "b-1"}, {"cluster": "green", "name": "g-1"}]
    with (
        sqlite_stage.node(blue, name="b-1", node=settings[0]) as first,
        sqlite_stage.node(green, name="g-1", node=settings[1]) as second,
    ):
        asked: dict[str, object] = {"pod_name": "twin", "namespace": "same"}
        for cluster, node in (("blue", first), ("green", second)):
            action_id = accepted(sqlite_stage.api, "checkpoint", asked | {"cluster_id": cluster})
            detail = sqlite_stage.api.wait_state(action_id, "ready")
            assert detail["details"]["cluster"] == cluster
            assert node.engine.runs == [action_id]
        answer = sqlite_stage.api.post("/v2/checkpoint/pod", asked)
        assert answer.status == 400
        assert blue.ref.uid in answer.json()["message"]
        assert green.ref.uid in answer.json()["message"]


def test_a_pod_that_no_live_node_has_is_not_found(stage: Stage) -> None:
    web = pod("web")
    with stage.node(web) as node:
        before = stage.api.get("/v2/actions").json()
        for body in (
            {"pod_id": "nobody"},
            {"pod_name": "nobody", "namespace": "default"},
            {"pod_id": web.ref.uid, "namespace": "other"},
            {"pod_id": web.ref.uid, "cluster_id": "elsewhere"},
        ):
            answer = stage.api.post("/v2/checkpoint/pod", body)
            assert answer.status == 404
            error = answer.json()
            assert error["code"] == "404"
            # The contract's words.
            assert error["message"].startswith("failed to find checkpointable resource")
            assert error["details"]["hint"]
        assert stage.api.get("/v2/actions").json() == before
    # It has gone in good order: nobody waits for its lease to end.
    eventually(lambda: node.name not in nodes_of(stage.api), "the node having gone")
    answer = stage.api.post("/v2/checkpoint/pod", {"pod_id": web.ref.uid})
    assert answer.status == 404, answer.text


def test_what_a_node_refuses_ends_as_an_error_that_says_why(stage: Stage) -> None:
    gone = pod("gone", uid=f"unknown-{pod().ref.uid}")
    with stage.node(gone) as node:
        action_id = stage.checkpoint(gone)
        done = stage.api.wait_state(action_id, "error", "ready")
    assert node.engine.runs == []
    error = done["details"]["error"]
    assert error["code"] == "pod_not_found"
    assert gone.ref.uid in error["message"]
    assert done["total_duration"] is None
    assert done["checkpoint_completed_timestamp"] is None
    status = stage.api.get(f"/v2/checkpoint/status/{action_id}").json()
    assert status["status"] == "error"
    assert error["message"] in status["details"]
    assert "log_tail" in json.dumps(error)
