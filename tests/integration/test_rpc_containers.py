"""The service with the real engine: real containers, the command line as the client."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from agent.actions import Engine, PodRestores
from agent.host.run import run
from agent.pb.checkpoint_agent.v1 import actions_pb2 as events_pb
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.settings import Pods, Settings, Storage
from bench.bundle import COUNTER
from bench.reports import Counter
from bench.runc import Container
from tests.cli_process import only_document, run_cli, start_cli
from tests.integration.aftermath import assert_unharmed, is_frozen
from tests.integration.lab import Lab
from tests.rpc_servers import Running, running, settings_in
from tests.waiting import eventually_async

pytestmark = [pytest.mark.root, pytest.mark.criu]

# As many programs as gRPC's at-fork handlers would kill dozens of.
PROGRAMS = 400


@asynccontextmanager
async def serving(lab: Lab) -> AsyncIterator[Running]:
    """A server of the lab's containers and store."""
    settings = settings_in(lab.directory, freeze_limit_seconds=60).model_copy(
        update={
            "state_dir": lab.state_dir,
            "storage": Storage(store=lab.store.url),
            "pods": Pods(runc_roots=(lab.runc.path,)),
        }
    )
    async with running(settings, _engine(settings, lab)) as made:
        yield made


def _engine(settings: Settings, lab: Lab) -> Engine:
    return Engine(settings, lab.tools, PodRestores())


def started(lab: Lab) -> Container:
    """A container that counts."""
    container = lab.runc.start(lab.runc.build(COUNTER))
    container.report("counter").wait_beyond(Counter.TICKS, 20)
    return container


async def cli(agent: Running, *words: str) -> Any:  # noqa: ANN401 - JSON
    """What a command prints as the client of this agent."""
    told = ("-o", "json", "--agent", agent.address)
    done = await asyncio.to_thread(run_cli, *words, *told)
    assert done.returncode == 0, done
    return only_document(done.stdout)


def ref(container: Container) -> events_pb.ContainerRef:
    """What the service calls it."""
    return events_pb.ContainerRef(id=container.id, runc_root=str(container.runc.path))


async def test_a_container_goes_through_the_agent_and_comes_back(lab: Lab) -> None:
    container = started(lab)
    async with serving(lab) as agent:
        root = ("--runc-root", str(lab.runc.path))
        told = await cli(agent, "checkpoint", container.id, *root, "--name", "nightly")
        assert told["streamed"]
        assert told["frozen_seconds"] > 0
        assert told["path"].startswith(lab.store.url)
        assert_unharmed(container)
        listed = (await cli(agent, "list"))["checkpoints"]
        assert [one["name"] for one in listed] == ["nightly"]
        inspected = await cli(agent, "inspect", told["path"])
        assert inspected["members"][0]["processes"]
        assert (await cli(agent, "verify", told["path"]))["chunks"] == told["chunks"]
        container.delete()
        restored = await cli(agent, "restore", told["path"])
        assert restored["pid"] == container.pid()
        assert restored["members"][0]["container_id"] == container.id
        report = container.report("counter")
        report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 20)
        await cli(agent, "delete", told["path"], "--yes")
    assert lab.stored() == []


async def test_ctrl_c_rolls_a_real_checkpoint_back(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    container = started(lab)
    criu, hooked = lab.hook("pre-dump")
    async with serving(hooked) as agent:
        words = ("checkpoint", container.id, "--runc-root", str(lab.runc.path))
        with start_cli(*words, "-o", "json", "--agent", agent.address) as process:
            await eventually_async(criu.reached, "CRIU coming to its hook")
            process.send_signal(signal.SIGINT)
            await eventually_async(lambda: "cancelling" in caplog.text, "the agent hearing of it")
            criu.release()
            out, _ = await asyncio.to_thread(process.communicate)
        assert process.returncode == 130
        assert only_document(out)["error"]["code"] == "interrupted"
    assert_unharmed(container)
    assert lab.stored() == []


async def test_a_freeze_ends_on_request_and_only_once(lab: Lab) -> None:
    container = started(lab)
    async with serving(lab) as agent:
        root = ("--runc-root", str(lab.runc.path))
        told = await cli(agent, "freeze", container.id, *root, "--for", "30s")
        assert told["containers"] == [container.id]
        assert is_frozen(container)
        first = await cli(agent, "thaw", told["freeze_id"])
        assert first["was_frozen"]
        assert_unharmed(container)
        again = await cli(agent, "thaw", told["freeze_id"])
        assert again == {"frozen_seconds": first["frozen_seconds"], "was_frozen": False}


async def test_a_freeze_ends_at_its_limit_whatever_becomes_of_its_client(lab: Lab) -> None:
    container = started(lab)
    async with serving(lab) as agent:
        async with agent.stub() as stub:
            request = pb.FreezeRequest(container=ref(container))
            request.limit.FromSeconds(1)
            answer = await stub.Freeze(request)
            assert is_frozen(container)
        await eventually_async(lambda: not is_frozen(container), "the limit")
        assert_unharmed(container)
        async with agent.stub() as stub:
            thawed = await stub.Thaw(pb.ThawRequest(freeze_id=answer.freeze_id))
        assert not thawed.was_frozen
        assert thawed.frozen_seconds > 0


async def test_programs_start_and_end_well_under_the_load_of_calls(lab: Lab) -> None:
    """gRPC's at-fork handlers were seen to kill 10-30 % of a process's children."""
    async with serving(lab) as agent, agent.stub() as stub:
        done = asyncio.Event()

        async def call() -> int:
            calls = 0
            while not done.is_set():
                await stub.ListActions(pb.ListActionsRequest())
                with pytest.raises(aio.AioRpcError) as error:
                    await stub.GetAction(pb.ActionId(action_id="none"))
                assert error.value.code() is grpc.StatusCode.NOT_FOUND
                calls += 2
            return calls

        calling = [asyncio.ensure_future(call()) for _ in range(8)]
        slots = asyncio.Semaphore(8)

        async def program() -> str:
            async with slots:
                return (await run(["sh", "-c", "echo fine"])).stdout

        said = await asyncio.gather(*(program() for _ in range(PROGRAMS)))
        done.set()
        assert sum(await asyncio.gather(*calling)) > 0
    assert said == ["fine\n"] * PROGRAMS
