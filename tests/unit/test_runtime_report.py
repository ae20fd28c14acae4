"""Whose action a pod's restore is, also when an agent was restarted in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.actions import Executor, PodRestores
from agent.actions.rows import Attempt
from agent.actions.worker import Plan
from agent.errors import RestoreFailed, StartedCold
from agent.messages.model import ActionRequest, State
from agent.runtime import ActionReporter
from agent.runtime.begun import Begun
from agent.runtime.sandboxes import Sandbox, Sandboxes
from agent.store.memory import MemoryStore
from agent.targets import PodRef
from tests.checkpoints import write_checkpoint
from tests.fakes.scripted_worker import ScriptedWorker
from tests.scripted_executors import executor, held, sent

ACTION = "0b5b0f0e-7a0c-4a53-8f5e-0a5bb1b2c3d4"
COLD = StartedCold("pod default/web", "no agent listens")


class Waiting(ScriptedWorker):
    """It takes restores into pods, and waits."""

    async def examine(self, request: ActionRequest) -> Plan:
        attempt = Attempt("sample", "file:///store")
        return Plan(keys=frozenset({request.action_id}), attempt=attempt, watches=True)


@asynccontextmanager
async def waiting(directory: Path) -> AsyncIterator[Executor]:
    script, gate = held()
    async with executor(directory, Waiting(scripts={ACTION: script})) as acting:
        yield acting
        gate.set()


def sandbox(directory: Path, uid: str = "u1") -> Sandbox:
    sandboxes = Sandboxes(directory / "restores", "cold", Begun(directory / "begun"))
    sandboxes.load()
    made = sandboxes.of(f"s-{uid}", PodRef(uid, "default", "web"))
    made.decision.path, made.decision.action_id = "file:///store/sample", ACTION
    return made


async def _began(acting: Executor, directory: Path) -> Sandbox:
    """What an agent has done that was restarted then."""
    made = sandbox(directory)
    manifest = write_checkpoint(MemoryStore("report"), {"inventory.img": b"i"})
    await ActionReporter(acting, PodRestores()).began(made, manifest)
    return made


async def test_an_agent_that_was_restarted_ends_the_action(tmp_path: Path) -> None:
    async with waiting(tmp_path / "journal") as acting:
        made, pods = await _began(acting, tmp_path), PodRestores()
        reporter = ActionReporter(acting, pods)
        assert await reporter.is_open(made)
        await reporter.fell_back(made, COLD)
        with pytest.raises(StartedCold, match="no agent listens"):
            await pods.outcome("u1", "file:///store/sample")


async def test_another_pods_action_is_left_alone(tmp_path: Path) -> None:
    """Whoever writes the annotation may be anybody."""
    async with waiting(tmp_path / "journal") as acting:
        await _began(acting, tmp_path)
        thief, pods = sandbox(tmp_path, "u2"), PodRestores(patience_seconds=0.1)
        reporter = ActionReporter(acting, pods)
        assert not await reporter.is_open(thief)
        await reporter.fell_back(thief, COLD)
        for uid in ("u1", "u2"):
            with pytest.raises(RestoreFailed, match="did not create"):
                await pods.outcome(uid, "file:///store/sample")


async def test_one_that_was_never_taken_is_told_of(tmp_path: Path) -> None:
    async with waiting(tmp_path / "journal") as acting:
        made = sandbox(tmp_path)
        await ActionReporter(acting, PodRestores()).fell_back(made, COLD)
        [event] = await sent(acting)
        assert (event.action_id, event.state, event.sequence) == (ACTION, State.ERROR, 0)
