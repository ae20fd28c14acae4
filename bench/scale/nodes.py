"""Nodes of a cluster in one process: agent.events and the executor with its journal, as they are.

    python -m bench.scale.nodes '{"broker": "nats://...", "directory": "/dev/shm/x", ...}'

Only the worker is not the agent's, see worker.py. Says `ready` once all nodes have a broker, and
runs until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.actions import Executor
from agent.events import Events
from agent.logs.lines import set_up
from agent.metrics import Metrics
from agent.settings import Settings
from bench.scale.pods import CLUSTER, node_info, node_name
from bench.scale.worker import QuickWorker

# Nodes that begin at the same time.
_AT_ONCE = 8
# Seconds until all of them have a broker.
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """Which nodes: ``count`` from number ``first`` on, with so many pods each.

    Attributes:
        directory: an existing one, for journals and for the ids of all actions that were begun.
        work_seconds: how long an action takes.
    """

    broker: str
    directory: str
    first: int
    count: int
    pods: int
    work_seconds: float


def runs(directory: Path) -> list[str]:
    """Ids of the actions that were begun by the nodes with that directory, in order."""
    return (directory / "runs").read_text().split()


async def _main(fleet: Fleet) -> None:
    with (Path(fleet.directory) / "runs").open("a", buffering=1) as begun:

        def began(action_id: str) -> None:
            begun.write(f"{action_id}\n")

        worker = QuickWorker(fleet.work_seconds, began)
        places = asyncio.Semaphore(_AT_ONCE)
        numbers = range(fleet.first, fleet.first + fleet.count)
        running = await asyncio.gather(
            *(_start(fleet, number, worker, places) for number in numbers)
        )
        print("ready", flush=True)
        await asyncio.gather(*running)


async def _start(
    fleet: Fleet, number: int, worker: QuickWorker, places: asyncio.Semaphore
) -> asyncio.Task[None]:
    settings = _settings(fleet, number)
    executor = Executor(settings, worker, Metrics("scale"))
    events = Events(
        settings,
        executor,
        lambda: node_info(number, fleet.pods, executor.running, executor.queued),
    )
    async with places:
        await executor.start()
        running = asyncio.create_task(events.run())
        if not await events.wait_ready(_PATIENCE):
            raise TimeoutError(f"{node_name(number)}: {events.problem}")
    return running


def _settings(fleet: Fleet, number: int) -> Settings:
    state_dir = Path(fleet.directory) / node_name(number)
    state_dir.mkdir(exist_ok=True)
    tables = {
        "state_dir": str(state_dir),
        "node": {"cluster": CLUSTER, "name": node_name(number)},
        "nats": {"url": fleet.broker},
        "pods": {"runc_roots": [str(state_dir)]},
    }
    return Settings.model_validate_json(json.dumps(tables))


if __name__ == "__main__":
    set_up("warning", "json")
    asyncio.run(_main(Fleet(**json.loads(sys.argv[1]))))
