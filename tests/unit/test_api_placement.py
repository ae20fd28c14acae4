"""Which node gets an action, with an inventory on a real broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from agent.api.errors import EventStreamFailed, NoNode, NotCheckpointable
from agent.api.placement import names_of, node_for_restore, node_of
from agent.errors import PodAmbiguous
from agent.events import Control
from agent.settings import Nats
from agent.targets import PodRef
from tests.api_nodes import pod
from tests.controls import control_on
from tests.event_agents import publish
from tests.servers.nats import NatsServer
from tests.waiting import eventually_async


@pytest.fixture
async def control(broker: NatsServer) -> AsyncIterator[Control]:
    async with control_on(broker) as made:
        yield made


async def be_there(
    broker: NatsServer,
    control: Control,
    node: str,
    *uids: str,
    cluster: str = "test",
    running: int = 0,
    queued: int = 0,
) -> None:
    """Let a node say this of itself."""
    said = {
        "cluster": cluster,
        "node": node,
        "running": running,
        "queued": queued,
        "pods": [{"ref": {"uid": uid, "namespace": "default", "name": "web"}} for uid in uids],
    }
    key = f"{cluster}.{node}"
    publish(broker, json.dumps(said).encode(), f"$KV.checkpoint-inventory.{key}")
    await eventually_async(
        lambda: control.nodes.get(cluster, node) is not None, f"{key} being known"
    )


async def test_a_pod_is_where_it_is(broker: NatsServer, control: Control) -> None:
    await be_there(broker, control, "a", "u1")
    await be_there(broker, control, "b", "u2", "u3", cluster="other")
    found = node_of(control, PodRef(uid="u2"), None)
    assert (found.cluster, found.node, found.pod.ref.uid) == ("other", "b", "u2")
    assert node_of(control, PodRef(name="web"), "test").node == "a"
    with pytest.raises(NotCheckpointable, match="u1"):
        node_of(control, PodRef(uid="u1"), "other")
    with pytest.raises(NotCheckpointable, match="default/none"):
        node_of(control, PodRef("", "default", "none"), None)


async def test_several_are_named(broker: NatsServer, control: Control) -> None:
    uids = [f"u{number}" for number in range(8)]
    await be_there(broker, control, "a", *uids)
    with pytest.raises(PodAmbiguous) as refused:
        node_of(control, PodRef(name="web"), None)
    said = str(refused.value)
    assert "default/web u0 on a" in said
    # A name that hundreds have would fill a screen.
    assert said.endswith("and 3 more")
    assert "u7" not in said


async def test_home_first(broker: NatsServer, control: Control) -> None:
    await be_there(broker, control, "home", *(f"u{n}" for n in range(9)), running=5, queued=5)
    await be_there(broker, control, "idle")
    assert node_for_restore(control, "test", "home", "manual") == "home"
    for reason in ("nodeTermination", "nodeUnschedulable"):
        assert node_for_restore(control, "test", "home", reason) == "idle"


async def test_else_the_one_with_the_least_to_do(broker: NatsServer, control: Control) -> None:
    await be_there(broker, control, "e", running=1, queued=1)
    assert node_for_restore(control, "test", "gone", "manual") == "e"
    await be_there(broker, control, "d", "u1", "u2", queued=1)
    assert node_for_restore(control, "test", "gone", "manual") == "d"
    await be_there(broker, control, "c", "u3", running=1)
    assert node_for_restore(control, "test", "gone", "manual") == "c"
    await be_there(broker, control, "b", "u4", queued=1)
    assert node_for_restore(control, "test", "gone", "manual") == "b"
    # However idle: it is in another cluster.
    await be_there(broker, control, "a", cluster="other")
    assert node_for_restore(control, "test", "gone", "manual") == "b"
    assert node_for_restore(control, "test", "b", "nodeTermination") == "c"


async def test_none(broker: NatsServer, control: Control) -> None:
    with pytest.raises(NoNode, match="no live node in cluster 'test'"):
        node_for_restore(control, "test", "home", "manual")
    await be_there(broker, control, "home")
    with pytest.raises(NoNode, match="but 'home', which is to be left"):
        node_for_restore(control, "test", "home", "nodeTermination")
    with pytest.raises(NoNode, match="'other'"):
        node_for_restore(control, "other", "home", "manual")


async def test_without_a_broker_nobody_can_tell() -> None:
    control = Control(Nats(url="nats://127.0.0.1:1"), "api")
    with pytest.raises(EventStreamFailed, match="not connected yet"):
        node_of(control, PodRef(uid="u1"), None)
    with pytest.raises(EventStreamFailed, match="not connected yet"):
        node_for_restore(control, "test", "home", "manual")


def test_only_what_has_a_name_of_its_own_is_named() -> None:
    assert names_of(pod(containers=[("a", "first"), ("b", ""), ("c", "x\0y")])) == {
        "a": "first",
        "c": "x\N{REPLACEMENT CHARACTER}y",
    }
