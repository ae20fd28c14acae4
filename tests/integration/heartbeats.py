"""A node's heartbeats over a lab: the real executor and engine, with intervals of a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import generate_latest

from agent.actions import Engine, Executor, PodRestores
from agent.chunks import read_manifest
from agent.errors import CheckpointNotFound
from agent.heartbeat import Heartbeats
from agent.manifest import Manifest
from agent.metrics import Metrics
from agent.settings import Settings
from agent.store import Store
from bench.pods import run_container
from bench.runc import Container
from tests.integration.lab import Lab

# A heartbeat as soon as may be. `simple`: the layers of plain runc's containers are no overlays.
EVERY = {"checkpoint-agent/heartbeat": "1s", "checkpoint-agent/kind": "simple"}


@dataclass(frozen=True, slots=True)
class Node:
    """What a test looks at."""

    lab: Lab
    executor: Executor
    metrics: Metrics

    def manifests(self) -> list[Manifest]:
        """Of every checkpoint in the store, oldest first."""
        return manifests(self.lab.store)

    def figure(self, name: str) -> float:
        """A metric with its labels, as a scrape has it; 0 when it is not there."""
        for line in generate_latest(self.metrics.registry).decode().splitlines():
            if line.startswith(f"checkpoint_agent_{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0


def manifests(store: Store) -> list[Manifest]:
    """Of every checkpoint in a store, oldest first."""
    found = []
    for name in store.directories():
        # One that was not committed yet, or has just been deleted.
        with contextlib.suppress(CheckpointNotFound):
            found.append(read_manifest(store, name))
    return sorted(found, key=lambda each: each.created_at)


@asynccontextmanager
async def executing_with(
    lab: Lab, **tables: Mapping[str, object]
) -> AsyncIterator[tuple[Settings, Node]]:
    """A node without heartbeats or drains of its own; ``tables`` go over its settings."""
    settings = Settings.model_validate(
        {
            "state_dir": lab.state_dir,
            "storage": {"store": lab.store.url},
            "pods": {"runc_roots": [lab.runc.path]},
            **tables,
        }
    )
    metrics = Metrics("test")
    executor = Executor(settings, Engine(settings, lab.tools, PodRestores()), metrics)
    await executor.start()
    try:
        yield settings, Node(lab, executor, metrics)
    finally:
        await executor.stop(0)
        await executor.close()


@asynccontextmanager
async def beating(
    lab: Lab, *, proc: Path | None = None, **heartbeat: object
) -> AsyncIterator[Node]:
    """A node with heartbeats.

    Args:
        proc: in the place of /proc; by default no pressure counts, as tests make a lot of it.
        heartbeat: over its settings.
    """
    calm = {f"{name}_pressure": 100.0 for name in ("cpu", "memory", "io")}
    table = {"minimum_seconds": 0.5, "store_free": 0.0, **calm, **heartbeat}
    async with executing_with(lab, heartbeat=table) as (settings, node):
        loop = Heartbeats(
            settings, node.executor, node.metrics,
            paused=lambda: False, proc=proc or Path("/proc"),
        )  # fmt: skip
        task = asyncio.create_task(loop.run())
        try:
            yield node
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait({task})


def pod_of(lab: Lab, name: str, annotations: Mapping[str, str] = EVERY) -> Container:
    """A pod of one container that counts."""
    return run_container(lab.runc, name, annotations=annotations)
