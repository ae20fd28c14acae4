"""The inventory as the Actions API sees it: real agents' entries, and what others write there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from agent.events import Control
from agent.pb.checkpoint_agent.v1 import actions_pb2, inventory_pb2
from agent.targets import PodRef
from tests.controls import control_on, controlling, is_ready
from tests.event_agents import Agent, agent_on, looking
from tests.servers.nats import NatsServer
from tests.waiting import eventually_async

# Seconds.
LONGEST_LEASE = 3600


def give_pod(agent: Agent, uid: str, name: str, namespace: str = "default") -> None:
    """Let an agent find a pod, as if runc had just made its container."""
    ref = actions_pb2.PodRef(uid=uid, namespace=namespace, name=name)
    agent.pods.append(inventory_pb2.Pod(ref=ref))
    (agent.settings.pods.runc_roots[0] / f"container-{uid}").mkdir()


def places(control: Control, ref: PodRef, cluster: str | None = None) -> list[str]:
    return sorted(f"{each.cluster}.{each.node}" for each in control.nodes.find(ref, cluster))


def there(control: Control) -> list[str]:
    return [f"{info.cluster}.{info.node}" for info in control.nodes.live()]


def entry(cluster: str, node: str, *uids: str) -> bytes:
    pods = [{"ref": {"uid": uid, "namespace": "default", "name": "web"}} for uid in uids]
    return json.dumps({"cluster": cluster, "node": node, "pods": pods}).encode()


async def write(bucket: KeyValue, key: str, value: bytes) -> None:
    await bucket.put(key, value, validate_keys=False)


async def writes(js: JetStreamContext) -> int:
    """How often anything was written to the inventory."""
    return (await js.stream_info("KV_checkpoint-inventory")).state.last_seq


async def test_agents_are_there_with_their_pods(broker: NatsServer, tmp_path: Path) -> None:
    async with (
        control_on(broker) as control,
        agent_on(broker, tmp_path) as one,
        agent_on(broker, tmp_path, "node-b") as other,
    ):
        give_pod(one, "u1", "web")
        give_pod(other, "u2", "web")
        give_pod(other, "u3", "db")
        await eventually_async(lambda: len(places(control, PodRef(name="web"))) == 2, "both pods")
        assert there(control) == ["test.node-a", "test.node-b"]
        info = control.nodes.get("test", "node-b")
        assert info is not None
        assert [pod.ref.uid for pod in info.pods] == ["u2", "u3"]
        assert control.nodes.get("test", "node-c") is None
        # The same name in two places: whoever asked has to say which.
        assert places(control, PodRef("", "default", "web")) == ["test.node-a", "test.node-b"]
        assert places(control, PodRef(uid="u2")) == ["test.node-b"]
        assert places(control, PodRef("u2", "default", "web")) == ["test.node-b"]
        assert places(control, PodRef("u2", "default", "db")) == []
        assert places(control, PodRef("", "other", "web")) == []
        assert places(control, PodRef(uid="u2"), "test") == ["test.node-b"]
        assert places(control, PodRef(uid="u2"), "prod") == []
        assert control.nodes.find(PodRef(uid="u3"), None)[0].pod.ref.name == "db"
        one.pods.clear()
        (one.settings.pods.runc_roots[0] / "container-u1").rmdir()
        await eventually_async(
            lambda: places(control, PodRef(name="web")) == ["test.node-b"], "the pod's end"
        )


async def test_who_was_there_before_is_known_when_it_is_ready(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with agent_on(broker, tmp_path) as agent:
        await agent.is_ready()
        async with control_on(broker) as first:
            await eventually_async(lambda: there(first) == ["test.node-a"], "the node")
        async with controlling(broker) as control:
            await is_ready(control)
            assert there(control) == ["test.node-a"]


async def test_a_node_that_stops_is_gone_at_once(
    broker: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Longer than any test may take: if it were for the lease to end, this would fail.
    async with control_on(broker, lease_seconds=LONGEST_LEASE) as control:
        async with agent_on(broker, tmp_path) as agent:
            give_pod(agent, "u1", "web")
            await eventually_async(lambda: places(control, PodRef(uid="u1")), "the pod")
        await eventually_async(lambda: not there(control), "the end")
        assert places(control, PodRef(uid="u1")) == []
        assert "ignored" not in caplog.text


async def test_a_node_that_dies_is_gone_with_its_lease(broker: NatsServer, tmp_path: Path) -> None:
    async with (
        looking(broker) as js,
        agent_on(broker, tmp_path, nats={"lease_seconds": 3}) as agent,
    ):
        await agent.is_ready()
        # Its own lease is longer: the bucket's counts.
        async with control_on(broker) as control:
            give_pod(agent, "u1", "web")
            await eventually_async(lambda: places(control, PodRef(uid="u1")), "the pod")
            steady = control.nodes.steady_since
            first = await writes(js)

            async def renewed() -> bool:
                return await writes(js) >= first + 4

            # Longer than the lease, of which each is a third.
            await eventually_async(renewed, "four renewals")
            await eventually_async(lambda: there(control) == ["test.node-a"], "the node")
            await agent.die()
            await eventually_async(lambda: not there(control), "the lease's end")
            assert places(control, PodRef(uid="u1")) == []
            assert control.nodes.steady_since == steady


async def test_an_old_entry_lasts_no_longer_for_who_comes_late(broker: NatsServer) -> None:
    loop = asyncio.get_running_loop()
    async with looking(broker) as js:
        async with control_on(broker, lease_seconds=LONGEST_LEASE):
            bucket = await js.key_value("checkpoint-inventory")
        began = loop.time()
        await write(bucket, "test.node-a", entry("test", "node-a"))
        written = loop.time()
    await asyncio.sleep(3)
    connecting = loop.time()
    async with control_on(broker) as control:
        # It has no clock but the broker's and its own, and sets one by the other meanwhile.
        doubt = loop.time() - connecting + 0.5
        control.nodes.heard(began + LONGEST_LEASE - 0.5)
        assert there(control) == ["test.node-a"]
        # With a whole lease from when it was read it would be three seconds more.
        control.nodes.heard(written + LONGEST_LEASE + doubt)
        assert not there(control)


HOSTILE = {
    "no json": ("test.bad", b"{"),
    "no text": ("test.bad", b"\xff\xfe"),
    "no message": ("test.bad", b"[1, 2]"),
    "nothing": ("test.bad", b"null"),
    "a number": ("test.bad", b"5"),
    "pods that are none": ("test.bad", b'{"cluster":"test","node":"bad","pods":[null, 3]}'),
    "deep": ("test.bad", b"[" * 100_000),
    "another's name": ("test.bad", entry("test", "node-a", "u1")),
    "another's cluster": ("test.bad", entry("prod", "bad", "u1")),
    "no name": ("test.bad", b"{}"),
    "one word": ("bad", entry("", "bad", "u1")),
    "three words": ("test.bad.er", entry("test", "bad.er", "u1")),
    "another letter": ("test.b=d", entry("test", "b=d", "u1")),
    "huge": ("test.bad", entry("test", "bad", *("u1" * 20_000 for _ in range(40)))),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_no_agent_has_written_is_ignored(
    broker: NatsServer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, value = HOSTILE[kind]
    async with control_on(broker) as control, looking(broker) as js:
        bucket = await js.key_value("checkpoint-inventory")
        await write(bucket, key, value)
        await write(bucket, "test.good", entry("test", "good", "u2"))
        await eventually_async(lambda: there(control) == ["test.good"], "the good one")
        await write(bucket, key, value + b" ")
        await write(bucket, "test.good", entry("test", "good", "u3"))
        await eventually_async(lambda: places(control, PodRef(uid="u3")), "the good one again")
        assert there(control) == ["test.good"]
        assert places(control, PodRef(uid="u1")) == []
        assert caplog.text.count("inventory entry ignored") == 1
        assert len(caplog.text) < 4000
        assert control.ready
    # Also for who reads them first.
    async with control_on(broker) as control:
        assert there(control) == ["test.good"]


async def test_a_node_whose_entry_is_spoiled_is_not_there(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        bucket = await js.key_value("checkpoint-inventory")
        await write(bucket, "test.node-a", entry("test", "node-a", "u1"))
        await eventually_async(lambda: places(control, PodRef(uid="u1")), "the pod")
        await write(bucket, "test.node-a", b"{")
        await eventually_async(lambda: not there(control), "its end")
        assert places(control, PodRef(uid="u1")) == []
        await write(bucket, "test.node-a", entry("test", "node-a", "u1"))
        await eventually_async(lambda: there(control) == ["test.node-a"], "its return")


async def test_a_newer_agent_may_say_more(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        bucket = await js.key_value("checkpoint-inventory")
        value = b'{"cluster": "test", "node": "node-a", "zone": {"name": "eu"}}'
        await write(bucket, "test.node-a", value)
        await eventually_async(lambda: there(control) == ["test.node-a"], "the node")


async def test_purged_keys_are_gone(broker: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        bucket = await js.key_value("checkpoint-inventory")
        await write(bucket, "test.node-a", entry("test", "node-a"))
        await eventually_async(lambda: there(control) == ["test.node-a"], "the node")
        await bucket.purge("test.node-a")
        await eventually_async(lambda: not there(control), "its end")
        assert "ignored" not in caplog.text
