"""The broker is away: what is asked for is refused at once, and nothing stays half begun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.api_nodes import Node, pod
from tests.api_servers import Api, api_in
from tests.api_stages import Stage, stage_on
from tests.event_agents import request
from tests.http import Answer, ask
from tests.servers.nats import NatsServer, nats_server
from tests.waiting import eventually

CHECKPOINT = "/v2/checkpoint/pod"


@pytest.fixture
def own(broker: NatsServer, tmp_path: Path) -> Iterator[Stage]:
    """A broker and an API that a test may do anything to."""
    with stage_on(broker, tmp_path) as made:
        yield made


def failed(answer: Answer) -> str:
    """The message of an error of the broker's, in the contract's words."""
    assert answer.status == 500, answer.text
    error = answer.json()
    assert error["code"] == "500"
    assert error["details"]["code"] == "event_stream_failed"
    assert error["message"].startswith("failed to connect to the event stream")
    return str(error["message"])


def states(api: Api) -> list[str]:
    """Of all actions, newest first."""
    return [each["status"] for each in api.get("/v2/actions").json()]


def is_ready_again(stage: Stage, node: Node) -> None:
    """Wait until a node and the API have found the broker again."""
    stage.api.wait_ready()
    eventually(lambda: node.agent.events.ready, "the node with a broker")
    eventually(
        lambda: node.name in stage.api.get("/v2/nodes").text, "the API knowing the node again"
    )


def test_a_broker_that_was_never_there(tmp_path: Path) -> None:
    web = pod("web")
    with nats_server(tmp_path) as broker:
        broker.stop()
        with api_in(tmp_path, broker.url) as api:
            assert ask("GET", f"{api.url}/healthz").json() == {"status": "ok"}
            ready = ask("GET", f"{api.url}/readyz")
            assert ready.status == 503
            assert ready.json()["status"] == "not ready"
            assert ready.json()["problems"][0].startswith("event stream: ")
            failed(api.post(CHECKPOINT, {"pod_id": web.ref.uid}))
            failed(api.get("/v2/nodes"))
            # What needs no broker works.
            assert api.get("/v2/actions").json() == []
            assert api.post(CHECKPOINT, {}).status == 400
            broker.start()
            api.wait_ready()
            with Stage(api, broker, tmp_path).node(web):
                Stage(api, broker, tmp_path).ready(web)


def test_a_broker_that_was_killed(own: Stage) -> None:
    web = pod("web")
    with own.node(web) as node:
        done = own.ready(web)
        own.broker.kill()
        eventually(lambda: own.api.get("/readyz").status == 503, "the API noticing")
        # At once: nobody waits for a broker to confirm what there is none for.
        for body in ({"pod_id": web.ref.uid}, {"pod_id": "nobody"}):
            assert "does not confirm" not in failed(own.api.post(CHECKPOINT, body))
        again = {"action_id": done, "reason": "manual"}
        assert "does not confirm" not in failed(own.api.post("/v2/restore/pod", again))
        assert states(own.api) == ["ready"]
        assert own.api.get(f"/v2/actions/{done}").json()["status"] == "ready"
        own.broker.start()
        is_ready_again(own, node)
        own.ready(web)
        assert states(own.api) == ["ready", "ready"]


def test_a_broker_that_dies_in_the_middle_of_it(own: Stage) -> None:
    web = pod("web")
    body = {"pod_id": web.ref.uid}
    with own.node(web) as node, ThreadPoolExecutor(1) as pool:
        own.broker.pause()
        asking = pool.submit(own.api.post, CHECKPOINT, body, None, "again")
        eventually(lambda: states(own.api) == ["initialized"], "the action being stored")
        # What it has not read yet is lost with it.
        own.broker.kill()
        failed(asking.result())
        assert states(own.api) == ["error"]
        (action,) = own.api.get("/v2/actions").json()
        assert action["details"]["error"]["code"] == "event_stream_failed"
        status = own.api.get(f"/v2/checkpoint/status/{action['action_id']}").json()
        assert "event stream" in status["details"]
        own.broker.start()
        is_ready_again(own, node)
        # This is the second attempt that the key is for.
        answer = own.api.post(CHECKPOINT, body, key="again")
        assert answer.status == 200, answer.text
        assert answer.headers["Idempotency-Replayed"] is None
        own.api.wait_state(answer.text, "ready")
        assert node.engine.runs == [answer.text]
        assert own.api.post(CHECKPOINT, body, key="again").text == answer.text
        assert states(own.api) == ["ready", "error"]


def test_a_broker_that_says_nothing(own: Stage) -> None:
    web = pod("web")
    body = {"pod_id": web.ref.uid}
    with own.node(web) as node:
        own.broker.pause()
        began = time.monotonic()
        message = failed(own.api.post(CHECKPOINT, body, key="mute"))
        # It got them, and the answer came while the broker still said nothing.
        assert "does not confirm within 5 s" in message
        assert time.monotonic() - began > 4
        (given_up,) = own.api.get("/v2/actions").json()
        assert given_up["status"] == "error"
        own.broker.resume()
        is_ready_again(own, node)
        answer = own.api.post(CHECKPOINT, body, key="mute")
        assert answer.status == 200, answer.text
        assert answer.text != given_up["action_id"]
        own.api.wait_state(answer.text, "ready")
        # The broker had got the first one all the same. Whatever its node says, it stays an error.
        assert states(own.api) == ["ready", "error"]


def test_actions_go_on_without_the_broker(own: Stage) -> None:
    web = pod("web")
    with own.node(web, open_gate=False) as node:
        action_id = own.checkpoint(web)
        own.api.wait_state(action_id, "checkpoint_created")
        own.broker.kill()
        node.let_go()
        eventually(lambda: own.api.get("/readyz").status == 503, "the API noticing")
        assert own.api.state_of(action_id) == "checkpoint_created"
        own.broker.start()
        own.api.wait_state(action_id, "ready")


def test_what_is_not_for_the_api_does_not_disturb_it(own: Stage) -> None:
    """Garbage among the events, in the inventory, and actions without a UUID for an id."""
    web = pod("web")
    own.say("action-events.test.a", b"no JSON")
    own.say("action-events.test.a", b'{"actionId": "a", "cluster": "test"}')
    own.say("$KV.checkpoint-inventory.x.y", b"\xff")
    own.say("$KV.checkpoint-inventory.too.many.dots", b"{}")
    with own.node(web) as node:
        own.say(f"actions.test.{node.name}.checkpoint", request("no-uuid", web.ref.uid))
        action_id = own.ready(web)
        eventually(lambda: len(node.engine.runs) == 2, "both actions")
        assert [each["action_id"] for each in own.api.get("/v2/actions").json()] == [action_id]
        assert own.api.get("/v2/actions/no-uuid").status == 404
        nodes = [each["node"] for each in own.api.get("/v2/nodes").json()]
        assert nodes == [node.name]
