"""A node's executor over a lab, with the real engine: what a daemon has, without its servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from agent.actions import Engine, Executor, PodRestores
from agent.messages.events import event_from
from agent.messages.model import (
    ActionRequest,
    CheckpointOverrides,
    CheckpointSpec,
    Event,
    RestoreSpec,
)
from agent.messages.requests import from_json
from agent.metrics import Metrics
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.settings import Settings
from bench.runc import Container
from tests.cli_process import environment
from tests.integration.lab import Lab, target_of


def settings_of(lab: Lab, **checkpoint: object) -> Settings:
    """A node that stores where the lab does, finds the lab's containers, and has a broker."""
    return Settings.model_validate(
        {
            "state_dir": lab.state_dir,
            "storage": {"store": lab.store.url},
            "checkpoint": {"staging_bytes": 0, **checkpoint},
            "pods": {"runc_roots": [lab.runc.path]},
            "nats": {"url": "nats://127.0.0.1:1"},
        }
    )


@asynccontextmanager
async def executing(
    lab: Lab, *, grace: float = 0.0, **checkpoint: object
) -> AsyncIterator[Executor]:
    """An executor from its start to its stop."""
    settings = settings_of(lab, **checkpoint)
    made = Executor(settings, Engine(settings, lab.tools, PodRestores()), Metrics("test"))
    await made.start()
    try:
        yield made
    finally:
        await made.stop(grace)
        await made.close()


def checkpoint_of(
    container: Container,
    action_id: str = "a",
    overrides: CheckpointOverrides = CheckpointOverrides(),  # noqa: B008 - frozen
) -> ActionRequest:
    """An action for a container."""
    return ActionRequest(action_id, CheckpointSpec(target_of(container), overrides=overrides))


def restore_of(path: str, action_id: str = "r") -> ActionRequest:
    """An action that brings a checkpoint back as it was."""
    return ActionRequest(action_id, RestoreSpec(path))


async def events_of(executor: Executor, action_id: str = "a") -> list[Event]:
    """What of an action waits for the broker, progress left out."""
    rows = await executor.outbox.next(10_000)
    events = [event_from(from_json(row.payload, pb.ActionEvent())) for row in rows]
    return [each for each in events if each.action_id == action_id and each.progress is None]


@contextmanager
def killed_agent(lab: Lab, *containers: Container) -> Iterator[subprocess.Popen[bytes]]:
    """Another process's executor with a checkpoint of each container, one at a time; kill it."""
    with (
        (lab.directory / "agent.log").open("wb") as log,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.fakes.held_executor", str(lab.state_dir)),
                *(lab.store.url, str(lab.runc.path), *(each.id for each in containers)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment({"CHECKPOINT_AGENT_CRIU": str(lab.tools.criu)}),
        ) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
