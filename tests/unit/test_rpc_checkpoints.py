"""The calls about stored checkpoints, and those about the node, over a real socket."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from grpc import aio

from agent.inspect import inspect
from agent.pb.checkpoint_agent.v1 import actions_pb2 as events_pb
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.store import open_store
from agent.store.file import FileStore
from agent.verify import MAX_WORKERS
from tests.checkpoints import flip_payload, write_checkpoint
from tests.fakes.slow_store import Gate
from tests.rpc_servers import Running, running, settings_in
from tests.servers.moto import Fault, MotoServer
from tests.waiting import eventually_async

if TYPE_CHECKING:
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub

IMAGES = {"inventory.img": b"abc", "pages-1.img": bytes(3 << 20)}


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Running]:
    """A server whose own store is the folder ``store``."""
    async with running(settings_in(tmp_path)) as made:
        yield made


@pytest.fixture
async def stub(agent: Running) -> AsyncIterator[AgentAsyncStub]:
    """A client of it."""
    async with agent.stub() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """The node's own store, with two checkpoints in it."""
    made = FileStore(tmp_path / "store")
    for name, day in (("older", "2025-01-02"), ("newer", "2025-01-03")):
        write_checkpoint(made, IMAGES, checkpoint_id=name, created_at=f"{day}T03:04:05Z")
    return made


async def test_listing(stub: AgentAsyncStub, store: FileStore) -> None:
    for named in ("", store.url, store.url.removeprefix("file://")):
        answer = await stub.ListCheckpoints(pb.ListCheckpointsRequest(store=named))
        assert answer.store == store.url
        found = [MessageToDict(one) for one in answer.checkpoints]
        assert [one["checkpoint_id"] for one in found] == ["newer", "older"]
        assert found[0]["bytes_raw"] == 3 + (3 << 20)
        assert found[0]["targets"] == ["c0"]
    one = await stub.ListCheckpoints(pb.ListCheckpointsRequest(limit=1))
    assert len(one.checkpoints) == 1


async def test_inspecting(stub: AgentAsyncStub, store: FileStore) -> None:
    answer = await stub.InspectCheckpoint(pb.CheckpointPath(path=f"{store.url}/newer"))
    told = MessageToDict(answer.inspection)
    local = inspect(store, "newer")
    assert told["bytes_raw"] == local.bytes_raw
    assert [image["name"] for image in told["members"][0]["images"]] == list(IMAGES)


async def test_verifying(stub: AgentAsyncStub, store: FileStore) -> None:
    answer = await stub.VerifyCheckpoint(pb.CheckpointPath(path=f"{store.url}/newer"))
    assert (answer.checkpoint_id, answer.members, answer.images) == ("newer", 1, 2)
    assert answer.bytes_raw == 3 + (3 << 20)


async def test_verifying_what_is_damaged(stub: AgentAsyncStub, store: FileStore) -> None:
    damaged = write_checkpoint(store, IMAGES, checkpoint_id="damaged")
    flip_payload(store, damaged, 1)
    with pytest.raises(aio.AioRpcError, match="chunk 1") as error:
        await stub.VerifyCheckpoint(pb.CheckpointPath(path=f"{store.url}/damaged"))
    assert error.value.code() is grpc.StatusCode.DATA_LOSS


async def test_deleting(stub: AgentAsyncStub, store: FileStore) -> None:
    path = pb.CheckpointPath(path=f"{store.url}/older")
    await stub.DeleteCheckpoint(path)
    assert store.directories() == ["newer"]
    with pytest.raises(aio.AioRpcError) as error:
        await stub.DeleteCheckpoint(path)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("call", ["InspectCheckpoint", "VerifyCheckpoint", "DeleteCheckpoint"])
async def test_only_allowed_stores_are_touched(
    stub: AgentAsyncStub, store: FileStore, tmp_path: Path, call: str
) -> None:
    outside = FileStore(tmp_path / "outside")
    write_checkpoint(outside, IMAGES, checkpoint_id="secret")
    (tmp_path / "store" / "way-out").symlink_to(tmp_path / "outside")
    for path in (
        f"{outside.url}/secret",
        f"{store.url}/../outside/secret",
        f"{store.url}/way-out/secret",
        "s3://bucket/secret?endpoint=http://127.0.0.1:1",
        "",
    ):
        with pytest.raises(aio.AioRpcError) as error:
            await getattr(stub, call)(pb.CheckpointPath(path=path))
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT, path
    assert outside.directories() == ["secret"]


async def test_verifying_stops_when_its_client_goes(
    tmp_path: Path, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto.log_in(monkeypatch)
    settings = settings_in(tmp_path)
    url = moto.url("checkpoints", "/verified")
    storage = settings.storage.model_copy(update={"store": url})
    # As many ranges as there are streams.
    pages = {"pages-1.img": random.Random(0).randbytes(64 << 14)}
    write_checkpoint(open_store(url), pages, streams=64, chunk_size=1 << 14)
    gate, reads = Gate(), []

    def before(environ: dict[str, Any]) -> None:
        begin, _, end = environ.get("HTTP_RANGE", "").removeprefix("bytes=").partition("-")
        if begin and int(end) - int(begin) > 1 << 10:
            reads.append(begin)
            gate()

    moto.faults.append(Fault("GET", "", "", before=before))
    async with (
        running(settings.model_copy(update={"storage": storage})) as agent,
        agent.stub() as stub,
    ):
        path = url.replace("/verified?", "/verified/sample?")
        verifying = stub.VerifyCheckpoint(pb.CheckpointPath(path=path))
        await eventually_async(gate.reached.is_set)
        verifying.cancel()
        # One connection, in order: when these are answered, the server has heard of it.
        for _ in range(10):
            await stub.GetNodeInfo(pb.GetNodeInfoRequest())
        gate.open()
        await eventually_async(
            lambda: not [one for one in threading.enumerate() if "verify" in one.name]
        )
    assert 0 < len(reads) <= MAX_WORKERS


# The node


async def test_the_node_and_its_pods(stub: AgentAsyncStub) -> None:
    node = await stub.GetNodeInfo(pb.GetNodeInfoRequest())
    assert (node.node, node.running, len(node.pods)) == ("node", 1, 2)
    assert len((await stub.ListPods(pb.ListPodsRequest())).pods) == 2
    pods = (await stub.ListPods(pb.ListPodsRequest(namespace="default"))).pods
    assert [pod.ref.name for pod in pods] == ["web"]
    assert not (await stub.ListPods(pb.ListPodsRequest(namespace="def"))).pods


async def test_freezing_needs_a_target_and_a_limit(agent: Running, stub: AgentAsyncStub) -> None:
    container = events_pb.ContainerRef(id="some")
    maximum = agent.settings.rpc.freeze_limit_seconds
    for request, field in (
        (pb.FreezeRequest(container=container), "limit"),
        (_limited(0, container), "limit"),
        (_limited(-1, container), "limit"),
        (_limited(int(maximum) + 1, container), "limit"),
        (_limited(1, None), "target"),
        (_limited(1, events_pb.ContainerRef()), "container.id"),
    ):
        with pytest.raises(aio.AioRpcError, match=field) as error:
            await stub.Freeze(request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(aio.AioRpcError) as error:
        await stub.Freeze(_limited(1, container))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_thawing_needs_a_freeze(stub: AgentAsyncStub) -> None:
    for freeze_id, code in (
        ("", grpc.StatusCode.INVALID_ARGUMENT),
        ("nothing", grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(aio.AioRpcError) as error:
            await stub.Thaw(pb.ThawRequest(freeze_id=freeze_id))
        assert error.value.code() is code


def _limited(seconds: int, container: events_pb.ContainerRef | None) -> pb.FreezeRequest:
    request = pb.FreezeRequest(container=container)
    request.limit.seconds = seconds
    return request
