"""Whole pods as actions: containers under the real runc that say whose they are, as usual."""

from __future__ import annotations

import asyncio
import random
import secrets
import uuid
from dataclasses import dataclass

import pytest

from agent.actions import Freezes
from agent.chunks import read_manifest
from agent.messages.model import ActionRequest, CheckpointSpec, RestoreOverrides, RestoreSpec, State
from agent.store import open_checkpoint
from agent.targets import PodRef
from agent.verify import verify
from bench.bundle import COUNTER, memory
from bench.runc import Container
from tests.integration.aftermath import assert_unharmed, is_frozen
from tests.integration.executors import checkpoint_of, events_of, executing
from tests.integration.lab import Lab
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]

_PREFIX = "io.kubernetes.cri."


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of two containers; its sandbox is not running, as nobody needs it."""

    ref: PodRef
    containers: tuple[Container, ...]


def pod_of(lab: Lab, name: str = "web") -> Pod:
    """A new one, with containers `app` and `side`."""
    ref = PodRef(str(uuid.uuid4()), "default", name)
    sandbox = secrets.token_hex(8)

    def started(container: str) -> Container:
        annotations = {
            "container-type": "container",
            "container-name": container,
            "image-name": "docker.io/library/a:1",
            "sandbox-id": sandbox,
            "sandbox-name": ref.name,
            "sandbox-namespace": ref.namespace,
            "sandbox-uid": ref.uid,
        }
        bundle = lab.runc.build(
            COUNTER,
            memory(4),
            annotations={_PREFIX + key: value for key, value in annotations.items()},
        )
        return lab.runc.start(bundle)

    return Pod(ref, (started("app"), started("side")))


def checkpoint_pod(ref: PodRef, action_id: str = "a") -> ActionRequest:
    return ActionRequest(action_id, CheckpointSpec(ref))


async def test_a_pod_is_one_checkpoint_by_its_name_alone(lab: Lab) -> None:
    pod = pod_of(lab)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_pod(PodRef("", "default", "web")))
        event = (await executor.wait("a")).event
        outcome = event.checkpoint
        assert outcome is not None, event.failure
        assert event.pod == pod.ref
        assert outcome.containers == ("app", "side")
        assert outcome.frozen_seconds > 0
        states = [each.state for each in await events_of(executor)]
        assert states == [
            State.INITIALIZED, State.PROCESSING, State.CHECKPOINT_CREATED, State.READY,
        ]  # fmt: skip
        store, name = open_checkpoint(outcome.path)
        manifest = read_manifest(store, name)
        assert manifest.pod is not None
        assert manifest.pod.uid == pod.ref.uid
        await verify(store, name)
        for container in pod.containers:
            assert_unharmed(container)
            container.delete()
        overrides = RestoreOverrides(pod_name="again")
        await executor.submit(ActionRequest("r", RestoreSpec(outcome.path, overrides=overrides)))
        restored = (await executor.wait("r")).event
        assert restored.restore is not None, restored.failure
        names = {each.name: each.container_id for each in restored.restore.members}
        assert names == {"app": "again-app", "side": "again-side"}


async def test_a_pod_and_its_containers_wait_for_each_other(lab: Lab) -> None:
    pod = pod_of(lab)
    async with executing(lab, concurrency=4) as executor:
        await executor.submit(checkpoint_pod(pod.ref, "pod"))
        for container in pod.containers:
            await executor.submit(checkpoint_of(container, container.id))
        await executor.submit(checkpoint_pod(PodRef(pod.ref.uid), "again"))
        for name in ("pod", "again", *(each.id for each in pod.containers)):
            action = await executor.wait(name)
            assert action.state is State.READY, action.event.failure
    for container in pod.containers:
        assert_unharmed(container)


async def test_a_pod_that_goes_while_it_waits_is_an_error(lab: Lab) -> None:
    pod = pod_of(lab)
    other = lab.runc.start(lab.runc.build(COUNTER))
    criu, hooked = lab.hook("post-dump")
    async with executing(hooked, concurrency=1) as executor:
        await executor.submit(checkpoint_of(other, "first"))
        await eventually_async(criu.reached, "the hook being reached")
        await executor.submit(checkpoint_pod(pod.ref, "second"))
        # Found, and waiting for its turn.
        await asyncio.sleep(0.1)
        for container in pod.containers:
            container.delete()
        criu.release()
        assert (await executor.wait("first")).state is State.READY
        failure = (await executor.wait("second")).event.failure
        assert failure is not None
        assert failure.code in ("pod_not_found", "target_not_checkpointable")


async def test_a_pod_is_frozen_as_a_whole(lab: Lab) -> None:
    pod = pod_of(lab)
    freezes = Freezes(state_dir=lab.state_dir, runc_roots=[lab.runc.path], limit_seconds=60)
    freeze = await freezes.freeze(PodRef("", "default", "web"), 60)
    assert set(freeze.containers) == {each.id for each in pod.containers}
    assert all(is_frozen(each) for each in pod.containers)
    async with executing(lab) as executor:
        await executor.submit(checkpoint_pod(pod.ref))
        action = await executor.wait("a")
        assert action.state is State.READY, action.event.failure
    assert all(is_frozen(each) for each in pod.containers)
    assert (await freezes.thaw(freeze.freeze_id)).was_frozen
    for container in pod.containers:
        assert_unharmed(container)
    await freezes.stop()


@pytest.mark.slow
async def test_many_actions_on_few_containers(lab: Lab) -> None:
    """All end well, and every container goes on counting."""
    chance = random.Random(1)
    containers = [lab.runc.start(lab.runc.build(COUNTER, memory(1))) for _ in range(6)]
    async with executing(lab, concurrency=4) as executor:
        names = [f"action-{number}" for number in range(30)]
        for name in names:
            await executor.submit(checkpoint_of(chance.choice(containers), name))
        for name in names:
            action = await executor.wait(name)
            assert action.state is State.READY, action.event.failure
    for container in containers:
        assert_unharmed(container)
    assert lab.operations() == []
