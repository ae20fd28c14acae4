"""What a `checkpoint-runc` is told, step by step, and what is left when one of both gives up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Executor, PodRestores
from agent.config import Tools
from agent.host import aside
from agent.host.cuda import Cuda
from agent.manifest import MANIFEST, Manifest, Pod, Volume, to_bytes
from agent.messages.model import State
from agent.operation.recovery import recover
from agent.runtime import ActionReporter, RestoreServer
from agent.runtime.sandboxes import Sandboxes
from agent.settings import Settings
from agent.store.file import FileStore
from tests.checkpoints import replace, write_checkpoint
from tests.fakes.scripted_worker import ScriptedWorker
from tests.scripted_executors import executor, sent
from tests.unit.test_runtime_server import POD
from tests.unit.test_trees import files
from tests.waiting import descriptors, eventually

ACTION = "0b5b0f0e-7a0c-4a53-8f5e-0a5bb1b2c3d4"


class Node:
    """A server with a checkpoint of the containers `app` and `side`, and a pod that asks for it."""

    def __init__(self, directory: Path, executor: Executor, **restore: object) -> None:
        self.directory = directory
        self.settings = Settings.model_validate(
            {
                "state_dir": directory / "state",
                "storage": {"store": str(directory / "store")},
                "restore": restore,
            }
        )
        self.executor, self.pods = executor, PodRestores()
        self.server = self.new_server()
        self.clients: list[Client] = []
        self.volume = directory / "pods/volumes/kubernetes.io~empty-dir/work"
        self.volume.mkdir(parents=True)
        (self.volume / "init").write_text("of an init container")

    def new_server(self) -> RestoreServer:
        nothing = Path("/nonexistent")
        reporter = ActionReporter(self.executor, self.pods)
        tools = Tools(nothing, nothing)
        path = self.directory / "restore.sock"
        return RestoreServer(self.settings, path, tools, Cuda(), reporter)

    def checkpoint(self, *, config: bytes | None = None, volume: bool = False) -> str:
        store = FileStore(self.directory / "store")
        images = {"inventory.img": b"i", "descriptors.json": b"[]"}
        if config is not None:
            images["config.json"] = config
        made = write_checkpoint(store, images, images | {"volume.tar": files("from-checkpoint")})
        replace(store, f"sample/{MANIFEST}", to_bytes(_of_pod(made, config is None, volume)))
        return f"{store.url}/sample"

    def record(self, container: str = "app") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.directory / "restores" / "s1" / f"{container}.json").read_text()
        )
        return found

    def operations(self) -> list[Path]:
        at = self.directory / "state" / "operations"
        return list(at.iterdir()) if at.exists() else []

    async def ask(self, wanted: str, container: str = "app", action: str = "") -> Client:
        bundle = self.directory / f"bundle-{container}"
        bundle.mkdir(exist_ok=True)
        config = {
            "root": {},
            "annotations": {
                **POD,
                "io.kubernetes.cri.container-name": container,
                "checkpoint-agent/restore-action": action,
            },
            "process": {"env": [f"CHECKPOINT_RESTORE={wanted}"]},
            "mounts": [{"destination": "/work", "source": str(self.volume)}],
        }
        (bundle / "config.json").write_text(json.dumps(config))
        client = Client(self.directory / "restore.sock")
        self.clients.append(client)
        about = {"id": f"id-{container}", "root": str(self.directory), "bundle": str(bundle)}
        await client.say({"create": about})
        assert await client.hear() == ("limit", {"seconds": self.settings.restore.limit_seconds})
        return client


class Client:
    """A `checkpoint-runc` of few words."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._lines = self.socket.makefile("rb")

    async def say(self, message: object) -> None:
        await asyncio.to_thread(self.socket.sendall, json.dumps(message).encode() + b"\n")

    async def hear(self) -> tuple[str, dict[str, Any]]:
        line = await asyncio.to_thread(self._lines.readline)
        ((word, content),) = json.loads(line or '{"gone": {}}').items()
        return word, content

    async def until_run(self) -> dict[str, Any]:
        assert (await self.hear())[0] == "volumes"
        word, order = await self.hear()
        assert word == "run", order
        return order

    def leave(self) -> None:
        self._lines.close()
        self.socket.close()


def _of_pod(made: Manifest, of_pod: bool, volume: bool) -> Manifest:
    app, side = (
        member.model_copy(
            update={
                "name": name,
                "images": [each for each in member.images if each.name != "volume.tar"],
            }
        )
        for name, member in zip(("app", "side"), made.members, strict=True)
    )
    [image] = [each for each in made.members[1].images if each.name == "volume.tar"]
    image = image.model_copy(update={"kind": "volume", "name": "work.tar"})
    return made.model_copy(
        update={
            "members": [app, side],
            "pod": Pod(uid="u0", namespace="default", name="web") if of_pod else None,
            "volumes": [Volume(name="work", medium="empty-dir", image=image)] if volume else [],
        }
    )


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[None]:
    await node.server.start()
    try:
        yield
    finally:
        for client in node.clients:
            client.leave()
        await node.server.stop(0.0)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        made = Node(tmp_path, acting)
        async with serving(made):
            yield made


async def _eventually(condition: Any) -> None:  # noqa: ANN401
    await asyncio.to_thread(eventually, condition, "it")


async def test_one_that_comes_back(node: Node) -> None:
    path, before = node.checkpoint(), descriptors()
    client = await node.ask(path)
    order = await client.until_run()
    assert "criu" in os.listdir(order["launcher"])
    assert order["layer"] is None
    assert order["unfinished"] is False
    await client.say({"ended": {"status": 0, "pid": os.getpid(), "reason": ""}})
    assert await client.hear() == ("restored", {})
    client.leave()
    await _eventually(lambda: node.operations() == [])
    assert (node.record()["state"], node.record()["pid"]) == ("restored", os.getpid())
    await _eventually(lambda: descriptors() == before)
    assert list((node.directory / "state" / "locks").iterdir()) == []


async def test_what_the_other_end_could_not_do(node: Node) -> None:
    path = node.checkpoint()
    client = await node.ask(path)
    await client.until_run()
    await client.say({"ended": {"status": 1, "pid": 0, "reason": "its writable layer: busy"}})
    word, content = await client.hear()
    assert word == "cold"
    assert "its writable layer: busy" in content["reason"]
    client.leave()
    await _eventually(lambda: node.operations() == [])
    # It is the pod's decision, and whoever waits for its action knows.
    side = await node.ask(path, "side")
    word, content = await side.hear()
    assert (word, "its writable layer: busy" in content["reason"]) == ("cold", True)
    side.leave()


@pytest.mark.root
async def test_volumes_come_back_when_the_processes_are_gone(node: Node) -> None:
    client = await node.ask(node.checkpoint(volume=True))
    await client.until_run()
    assert sorted(os.listdir(node.volume)) == [aside.NAME, "from-checkpoint"]
    await client.say({"ended": {"status": 1, "pid": 0}})
    assert (await client.hear())[0] == "cold"
    # The other end has still to end what may write there; it then does the same itself.
    assert sorted(os.listdir(node.volume)) == [aside.NAME, "from-checkpoint"]
    client.leave()
    await _eventually(lambda: node.operations() == [])
    assert os.listdir(node.volume) == ["init"]


@pytest.mark.root
async def test_what_an_agent_that_dies_has_put_back_stays(node: Node) -> None:
    client = await node.ask(node.checkpoint(volume=True))
    await client.until_run()
    assert node.record()["volumes"] == ["empty-dir/work"]
    # The mark of a `checkpoint-runc` that was content.
    (node.directory / "id-app").mkdir()
    (node.directory / "id-app" / "checkpoint-restored").touch()
    client.leave()
    again = Sandboxes(node.directory / "restores", "cold")
    again.load()
    [sandbox] = again.known()
    assert sandbox.has_restored
    assert sandbox.decision.volumes == {"empty-dir/work"}


@pytest.mark.root
async def test_a_client_that_vanishes(node: Node) -> None:
    path = node.checkpoint(volume=True)
    client = await node.ask(path)
    await client.until_run()
    # Perhaps it was not killed, and what has that id by now is a cold start.
    (node.directory / "id-app").mkdir()
    client.leave()
    await _eventually(lambda: node.record()["state"] == "failed")
    await _eventually(lambda: os.listdir(node.volume) == ["init"])

    def no_tools() -> Tools:
        raise AssertionError

    # Its runc may live a little longer; the recovery waits for that, and keeps off as well.
    assert len(node.operations()) == 1
    state = node.directory / "state"
    async with asyncio.timeout(20):
        while node.operations():
            await recover(tools=no_tools, state_dir=state)
    assert (node.directory / "id-app").exists()
    # Nothing was decided for the pod: the kubelet tries again.
    again = await node.ask(path)
    await again.until_run()
    again.leave()


async def test_what_was_decided_without_an_agent_is_told(tmp_path: Path) -> None:
    """By a `checkpoint-runc` that found none, for the pod's first container."""
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting)
        (tmp_path / "restores" / "s1").mkdir(parents=True)
        record = {"state": "cold", "container_id": "id-app", "reason": "no agent listens",
                  "at": time.time()}  # fmt: skip
        (tmp_path / "restores" / "s1" / "app.json").write_text(json.dumps(record))
        async with serving(node):
            for container in ("side", "another"):
                client = await node.ask("nobody", container, ACTION)
                word, content = await client.hear()
                reason = "the pod was started cold: no agent listens"
                assert (word, content["reason"]) == ("cold", reason)
                client.leave()
        [event] = await sent(acting)
        assert (event.action_id, event.state) == (ACTION, State.ERROR)


async def test_a_defect_is_a_decision_too(node: Node) -> None:
    path = node.checkpoint(config=b"[" * 100_000)
    client = await node.ask(path)
    word, content = await client.hear()
    assert word == "cold"
    assert "RecursionError" in content["reason"]
    client.leave()
    side = await node.ask(path, "side")
    assert (await side.hear())[0] == "cold"
    side.leave()


async def test_records_that_cannot_be_written(node: Node) -> None:
    path = node.checkpoint()
    (node.directory / "restores" / "s1").write_text("in the way")
    client = await node.ask(path)
    await client.until_run()
    await client.say({"ended": {"status": 0, "pid": os.getpid()}})
    assert await client.hear() == ("restored", {})
    client.leave()
    await _eventually(lambda: node.operations() == [])


async def test_one_that_is_late(tmp_path: Path) -> None:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting, limit_seconds=0.5, fallback="fail")
        async with serving(node):
            client = await node.ask(node.checkpoint())
            await client.until_run()
            word, content = await client.hear()
            assert (word, "not done within 0.5 s" in content["reason"]) == ("failed", True)
            client.leave()
            await _eventually(lambda: node.operations() == [])


async def test_an_agent_that_stops_in_the_middle(tmp_path: Path) -> None:
    async with executor(tmp_path / "journal", ScriptedWorker()) as acting:
        node = Node(tmp_path, acting)
        async with serving(node):
            client = await node.ask(node.checkpoint())
            await client.until_run()
            stopping = asyncio.create_task(node.server.stop(0.0))
            assert (await client.hear())[0] == "cold"
            client.leave()
            await stopping
        assert node.operations() == []
