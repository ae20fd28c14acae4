"""One checkpoint under way: what is dumped, how, and the way its images take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent.capture.images import ImageSet
from agent.capture.pipeline import Pipeline
from agent.checkpoint.subject import Subject
from agent.compress import Compression, parse_compression
from agent.config import Tools
from agent.host.criu import DumpStats, read_dump_stats
from agent.manifest import Host, Options
from agent.operation.journal import Operation
from agent.report import Phases, Update
from agent.store import Store
from agent.targets import Target

STATS = "stats-dump"

# Called while the subject is still frozen and everything is copied out, with the seconds frozen so
# far and why CRIU could not stream, if it could not.
BeforeThaw = Callable[[float, str | None], Awaitable[None]]

# As many as a small node has cores, twice: storage and compression overlap. More only help far
# stores.
DEFAULT_STREAMS = 4


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """What to checkpoint, how, and where to."""

    target: Target
    store: Store
    streams: int = DEFAULT_STREAMS
    compression: Compression = field(default_factory=lambda: parse_compression("zstd"))
    stop: bool = False
    name: str | None = None
    options: Options = field(default_factory=Options)


class Job:
    """Everything the steps of one checkpoint share."""

    def __init__(
        self,
        request: CheckpointRequest,
        subject: Subject,
        operation: Operation,
        checkpoint_id: str,
        *,
        tools: Tools,
        host: Host,
        phases: Phases,
    ) -> None:
        self.request, self.subject, self.operation = request, subject, operation
        self.checkpoint_id, self.tools, self.host, self.phases = checkpoint_id, tools, host, phases
        self.phase = "start"
        self.failed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.pipeline = Pipeline(
            request.store,
            checkpoint_id,
            streams=request.streams,
            compression=request.compression,
            on_failure=self._notice_failure,
        )
        self.images = ImageSet(self.pipeline)

    def _notice_failure(self) -> None:
        """Called by the thread that failed."""
        self._loop.call_soon_threadsafe(self.failed.set)

    def progress(self) -> Update:
        """How far it is."""
        return Update(self.phase, self.pipeline.bytes_raw, self.pipeline.bytes_stored)


def read_stats(operation: Operation) -> DumpStats | None:
    """CRIU's figures of the dump; None before its end. It writes them beside its logs."""
    try:
        return read_dump_stats((operation.work / STATS).read_bytes())
    except (OSError, ValueError):
        return None
