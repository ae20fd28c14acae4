"""An executor with the real engine that is given checkpoints and runs until it is killed.

    python -m tests.fakes.held_executor STATE_DIR STORE RUNC_ROOT CONTAINER...

Actions are called as their containers, and run one at a time.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.actions import Engine, Executor, PodRestores
from agent.config import find_tools
from agent.messages.model import ActionRequest, CheckpointSpec
from agent.metrics import Metrics
from agent.settings import Settings
from agent.targets import RuncTarget


async def _main(state_dir: str, store: str, root: str, *containers: str) -> None:
    settings = Settings.model_validate(
        {
            "state_dir": Path(state_dir),
            "storage": {"store": store},
            "checkpoint": {"concurrency": 1},
            "nats": {"url": "nats://127.0.0.1:1"},
        }
    )
    executor = Executor(settings, Engine(settings, find_tools(), PodRestores()), Metrics("test"))
    await executor.start()
    for container in containers:
        await executor.submit(
            ActionRequest(container, CheckpointSpec(RuncTarget(container, Path(root))))
        )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
