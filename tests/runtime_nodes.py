"""An agent that `checkpoint-runc` talks to, and clients in its place that say what a test wants."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.actions import Engine, Executor, PodRestores
from agent.config import Tools
from agent.host.cuda import Cuda
from agent.manifest import MANIFEST, ROOTFS_DIFF, Manifest, Pod, Volume, to_bytes
from agent.metrics import Metrics
from agent.runtime import ActionReporter, RestoreServer
from agent.settings import Settings
from agent.store.file import FileStore
from tests.checkpoints import replace, write_checkpoint
from tests.unit.test_runtime_server import POD
from tests.unit.test_trees import files
from tests.waiting import eventually

ACTION = "0b5b0f0e-7a0c-4a53-8f5e-0a5bb1b2c3d4"


class Node:
    """A server with a checkpoint of the containers `app` and `side`, and a pod that asks for it."""

    def __init__(
        self,
        directory: Path,
        executor: Executor,
        pods: PodRestores | None = None,
        **restore: object,
    ) -> None:
        """``pods`` are those that the executor's worker waits for, if it does."""
        self.directory = directory
        self.settings = _settings(directory, restore)
        self.executor, self.pods = executor, pods or PodRestores()
        self.server = self.new_server()
        self.clients: list[Client] = []
        self.volume = directory / "pods/u1/volumes/kubernetes.io~empty-dir/work"
        self.upper = directory / "layers" / "fs"
        self.volume.mkdir(parents=True)
        self.upper.mkdir(parents=True)
        (self.volume / "init").write_text("of an init container")

    def new_server(self) -> RestoreServer:
        nothing = Path("/nonexistent")
        reporter = ActionReporter(self.executor, self.pods)
        tools = Tools(nothing, nothing)
        path = self.directory / "restore.sock"
        return RestoreServer(self.settings, path, tools, Cuda(), reporter)

    def checkpoint(self, *, volume: bool = False, layer: bool = False) -> str:
        store = FileStore(self.directory / "store")
        images = {"inventory.img": b"i", "descriptors.json": b"[]"}
        if layer:
            images[ROOTFS_DIFF] = files("from-checkpoint")
        made = write_checkpoint(store, images, images | {"volume.tar": files("from-checkpoint")})
        replace(store, f"sample/{MANIFEST}", to_bytes(_of_pod(made, volume)))
        return f"{store.url}/sample"

    def record(self, container: str = "app", sandbox: str = "s1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.directory / "restores" / sandbox / f"{container}.json").read_text()
        )
        return found

    def operations(self) -> list[Path]:
        at = self.directory / "state" / "operations"
        return list(at.iterdir()) if at.exists() else []

    async def ask(
        self,
        wanted: str,
        container: str = "app",
        action: str = "",
        sandbox: str = "s1",
        uid: str = "u1",
        **about: str,
    ) -> Client:
        """``about`` is what it says of itself beyond what is usual, or instead of that."""
        name = container if sandbox == "s1" else f"{container}-{sandbox}"
        bundle = self.directory / f"bundle-{name}"
        bundle.mkdir(exist_ok=True)
        config = {
            "root": {},
            "annotations": {
                **POD,
                "io.kubernetes.cri.container-name": container,
                "io.kubernetes.cri.sandbox-id": sandbox,
                "io.kubernetes.cri.sandbox-uid": uid,
                "checkpoint-agent/restore-action": action,
            },
            "process": {"env": [f"CHECKPOINT_RESTORE={wanted}"]},
            "mounts": [{"destination": "/work", "source": str(self.volume)}],
        }
        (bundle / "config.json").write_text(json.dumps(config))
        client = Client(self.directory / "restore.sock")
        self.clients.append(client)
        usual = {
            "id": f"id-{name}",
            "root": str(self.directory),
            "bundle": str(bundle),
            "upper": str(self.upper),
        }
        await client.say({"create": usual | about})
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

    async def come_back(self) -> None:
        """Go the whole way, as the process that asks."""
        await self.until_run()
        await self.say({"ended": {"status": 0, "pid": os.getpid(), "reason": ""}})
        assert await self.hear() == ("restored", {})
        self.leave()

    def leave(self) -> None:
        self._lines.close()
        self.socket.close()


def _settings(directory: Path, restore: object) -> Settings:
    return Settings.model_validate(
        {
            "state_dir": directory / "state",
            "storage": {"store": str(directory / "store")},
            "restore": restore,
            "nats": {"url": "nats://127.0.0.1:1"},
        }
    )


def _of_pod(made: Manifest, volume: bool) -> Manifest:
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
            "pod": Pod(uid="u0", namespace="default", name="web"),
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


@asynccontextmanager
async def reporting(directory: Path, **restore: object) -> AsyncIterator[Node]:
    """A node that serves, and whose actions end when their pods are back."""
    pods, nothing = PodRestores(), Path("/nonexistent")
    settings = _settings(directory, restore)
    engine = Engine(settings, Tools(nothing, nothing), pods)
    acting = Executor(settings, engine, Metrics("test"))
    await acting.start()
    try:
        node = Node(directory, acting, pods, **restore)
        async with serving(node):
            yield node
    finally:
        await acting.stop(0.0)
        await acting.close()


async def soon(condition: Callable[[], object]) -> None:
    """Return once ``condition()`` is true, while the server goes on."""
    await asyncio.to_thread(eventually, condition, "it")
