"""The calls about stored checkpoints. They block on a store, so they have threads of their own."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from google.protobuf.struct_pb2 import Struct

from agent.actions import allowed_checkpoint, allowed_store
from agent.catalog import delete, list_checkpoints
from agent.inspect import inspect
from agent.logs import get_logger
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.rpc.background import Background
from agent.settings import Storage
from agent.verify import verify

# A store that hangs may hold up these calls, but neither the loop's own threads, which freeze and
# journal, nor more memory than four inspections take.
READERS: Final = 4
# A verification reads on every core; a second one would only make both slower.
VERIFICATIONS: Final = 1

T = TypeVar("T")

_log = get_logger(__name__)


class CheckpointCalls:
    """ListCheckpoints, InspectCheckpoint, VerifyCheckpoint, DeleteCheckpoint."""

    def __init__(self, storage: Storage, background: Background) -> None:
        self._storage = storage
        self._background = background
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="rpc-read")
        self._verifying = asyncio.Semaphore(VERIFICATIONS)

    async def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, _context: object
    ) -> pb.ListCheckpointsResponse:
        """The checkpoints of a store, newest first."""

        def read() -> pb.ListCheckpointsResponse:
            store = allowed_store(request.store, self._storage, "store")
            found = list_checkpoints(store)
            return pb.ListCheckpointsResponse(
                store=store.url,
                checkpoints=[_struct(one) for one in found[: request.limit or None]],
            )

        return await self._read(read)

    async def InspectCheckpoint(
        self, request: pb.CheckpointPath, _context: object
    ) -> pb.InspectCheckpointResponse:
        """What a checkpoint holds."""

        def read() -> pb.InspectCheckpointResponse:
            found = inspect(*allowed_checkpoint(request.path, self._storage, "path"))
            return pb.InspectCheckpointResponse(inspection=_struct(found))

        return await self._read(read)

    async def VerifyCheckpoint(
        self, request: pb.CheckpointPath, _context: object
    ) -> pb.VerifyCheckpointResponse:
        """Read everything back. Ends when its client goes, after the ranges it is reading."""
        place = await self._read(lambda: allowed_checkpoint(request.path, self._storage, "path"))
        async with self._verifying:
            result = await verify(*place)
        return pb.VerifyCheckpointResponse(**dataclasses.asdict(result))

    async def DeleteCheckpoint(
        self, request: pb.CheckpointPath, _context: object
    ) -> pb.DeleteCheckpointResponse:
        """Delete it for good. Once begun it is done, whether or not its client waits."""

        def work() -> None:
            delete(*allowed_checkpoint(request.path, self._storage, "path"))

        deleting = asyncio.ensure_future(self._read(work))
        try:
            await asyncio.shield(deleting)
        except asyncio.CancelledError:
            self._background.start(_ended(deleting))
            raise
        _log.info("deleted", path=request.path)
        return pb.DeleteCheckpointResponse()

    def close_reads(self) -> None:
        """Begin no more reads. Those under way end by themselves and hold nothing up."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


async def _ended(work: asyncio.Future[None]) -> None:
    await work


def _struct(value: Any) -> Struct:  # noqa: ANN401 - any of our dataclasses
    message = Struct()
    message.update(dataclasses.asdict(value))
    return message
