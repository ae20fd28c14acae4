"""Import: an archive becomes a checkpoint in a store, streams first, manifest last."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import agent
from agent.archive import facts
from agent.archive.input import Input, opened
from agent.archive.read import ArchiveReader
from agent.capture.pipeline import Pipeline
from agent.checkpoint.commit import withdraw
from agent.checkpoint.copying import copy_in_thread
from agent.checkpoint.request import check_text
from agent.chunks import checkpoint_path
from agent.compress import Compression, parse_compression
from agent.errors import CheckpointCorrupt, InvalidArgument
from agent.frame import MAX_STREAMS
from agent.host.criu import read_dump_stats
from agent.host.runc import has_terminal
from agent.host.shield import to_the_end
from agent.manifest import (
    MANIFEST,
    MAX_MANIFEST,
    Chunk,
    Host,
    Manifest,
    Member,
    Options,
    Pod,
    Stream,
    to_bytes,
)
from agent.operation import journal
from agent.report import CheckpointResult, Observer, Phases, Update, ignore, watched
from agent.store import Store

_NOT_STREAMED: Final = "it came in an archive"
# What an archive does not tell of the machine that it is from.
_SOMEWHERE: Final = Host(
    name="", kernel="unknown", architecture="unknown", criu="unknown", runc=None
)


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """An archive to be taken into a store; ``archive`` is a file's path, or ``-``."""

    archive: str
    store: Store
    streams: int = 4
    compression: Compression = field(default_factory=lambda: parse_compression("zstd"))
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ImportResult(CheckpointResult):
    """What ``import`` returns and prints: as ``checkpoint`` does, and what nothing was done with.

    ``frozen_seconds`` is what CRIU has measured, 0 where the archive does not tell.
    """

    left_out: list[str] = field(default_factory=list)


async def import_archive(
    request: ImportRequest, *, state_dir: Path, observer: Observer = ignore
) -> ImportResult:
    """Make a checkpoint of an archive; when this returns, it is durable and committed.

    On any error, and when cancelled, nothing is stored.

    Raises:
        InvalidArgument: the archive is not there, or the request makes no sense.
        CheckpointCorrupt: it is no archive of a container, or a damaged or hostile one.
        StoreFailed: it cannot be read, or the store not be written.
    """
    if not 1 <= request.streams <= MAX_STREAMS:
        raise InvalidArgument("streams", f"{request.streams} is not from 1 to {MAX_STREAMS}")
    if request.name is not None:
        check_text("name", request.name)
    phases = Phases()
    with contextlib.ExitStack() as cleanup:
        with phases.measure("prepare"):
            descriptor = cleanup.enter_context(opened(request.archive))
            await asyncio.to_thread(request.store.check_writable)
            work = await to_the_end(asyncio.to_thread(_begin, request, state_dir, phases, cleanup))
        async with watched(observer, work.progress):
            manifest = await work.run(descriptor)
    return _result(work, manifest)


def _begin(
    request: ImportRequest, state_dir: Path, phases: Phases, cleanup: contextlib.ExitStack
) -> _Work:
    """Write down what is about to be stored: after a kill, the next recovery removes it."""
    identity = journal.new_id()
    record = journal.Record(
        kind="checkpoint",
        operation=identity,
        checkpoint_id=identity,
        store=request.store.url,
        target=f"archive {request.archive}",
    )
    cleanup.callback(journal.begin(state_dir, record).remove)
    work = _Work(request, identity, phases, state_dir)
    cleanup.callback(work.pipeline.end)
    return work


class _Work:
    """One import under way."""

    def __init__(
        self, request: ImportRequest, checkpoint_id: str, phases: Phases, state_dir: Path
    ) -> None:
        self.request, self.checkpoint_id, self.phases = request, checkpoint_id, phases
        self._state_dir = state_dir
        self.pipeline = Pipeline(
            request.store,
            checkpoint_id,
            streams=request.streams,
            compression=request.compression,
            # Who fills the pipeline looks itself.
            on_failure=lambda: None,
        )
        self.reader = ArchiveReader(self.pipeline)

    def progress(self) -> Update:
        return Update("import", self.pipeline.bytes_raw, self.pipeline.bytes_stored)

    async def run(self, descriptor: int) -> Manifest:
        try:
            self.pipeline.start(0)
            with self.phases.measure("read"):
                await self._read(descriptor)
            with self.phases.measure("store"):
                streams, chunks = await asyncio.to_thread(self.pipeline.finish)
            with self.phases.measure("commit"):
                return await to_the_end(asyncio.to_thread(self._commit, streams, chunks))
        except BaseException:
            await to_the_end(asyncio.to_thread(self._discard))
            raise

    async def _read(self, descriptor: int) -> None:
        source = Input(descriptor, self.request.archive, lambda: self.pipeline.failure is not None)
        try:
            await copy_in_thread(self.pipeline, lambda: self.reader.read(source))
        except ValueError as error:
            raise self._unusable(str(error)) from error

    def _commit(self, streams: list[Stream], chunks: list[Chunk]) -> Manifest:
        try:
            manifest = self._manifest(streams, chunks)
        except ValueError as error:
            raise self._unusable(str(error)) from error
        data = to_bytes(manifest)
        if len(data) > MAX_MANIFEST:
            raise self._unusable("it has more images than a manifest can name")
        self.request.store.put(f"{self.checkpoint_id}/{MANIFEST}", data)
        return manifest

    def _manifest(self, streams: list[Stream], chunks: list[Chunk]) -> Manifest:
        contents = self.reader.contents
        identity = facts.identity_of(contents.spec)
        pod = identity.pod if identity else None
        return Manifest(
            checkpoint_id=self.checkpoint_id,
            name=self.request.name,
            kind="rootfs" if contents.has_layer else "simple",
            pod=Pod(uid=pod.uid, namespace=pod.namespace, name=pod.name) if pod else None,
            created_at=_created_at(contents.config),
            agent_version=agent.__version__,
            host=_SOMEWHERE,
            codec=str(self.request.compression),
            streamed=False,
            fallback_reason=_NOT_STREAMED,
            frozen_seconds=_frozen_seconds(contents.stats),
            phases=self.phases.summary(),
            members=[self._member(facts.member_name(contents.config, identity))],
            volumes=self.reader.volumes,
            streams=streams,
            chunks=chunks,
        )

    def _member(self, name: str) -> Member:
        contents = self.reader.contents
        target = contents.config.get("id")
        return Member(
            name=name,
            kind="runc",
            target=target if isinstance(target, str) and target else name,
            # In its own namespace: which it had on its machine, nobody tells.
            pid=1,
            terminal=has_terminal(contents.spec),
            options=_options(contents.images),
            images=self.reader.images(),
        )

    def _discard(self) -> None:
        self.pipeline.abort()
        withdraw(self.request.store, self.checkpoint_id, self._state_dir)

    def _unusable(self, reason: str) -> CheckpointCorrupt:
        return CheckpointCorrupt(path=self.request.archive, reason=reason)


def _options(images: list[str]) -> Options:
    """What CRIU was told at the dump, as far as its images show."""
    return Options(
        tcp_established=any(name.startswith("tcp-stream-") for name in images),
        file_locks="filelocks.img" in images,
    )


def _created_at(config: facts.Json) -> str:
    """When the container was checkpointed; now, where the archive does not tell."""
    said = config.get("checkpointedTime")
    moment = datetime.now(UTC)
    # OverflowError: in the last hours of the year 9999, far enough to the west.
    with contextlib.suppress(ValueError, OverflowError):
        told = datetime.fromisoformat(said if isinstance(said, str) else "")
        # Go's zero time is in the year 1.
        if told.year >= 1970 and told.tzinfo is not None:
            moment = told.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")


def _frozen_seconds(stats: bytes | None) -> float:
    try:
        figures = read_dump_stats(stats or b"")
    except ValueError:
        return 0.0
    return round(figures.freezing + figures.frozen, 6)


def _result(work: _Work, manifest: Manifest) -> ImportResult:
    return ImportResult(
        checkpoint_id=manifest.checkpoint_id,
        path=checkpoint_path(work.request.store, manifest.checkpoint_id),
        name=manifest.name,
        frozen_seconds=manifest.frozen_seconds,
        wall_seconds=round(work.phases.wall(), 6),
        phases=work.phases.summary(),
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        chunks=len(manifest.chunks),
        streams=len(manifest.streams),
        codec=manifest.codec,
        streamed=manifest.streamed,
        fallback_reason=manifest.fallback_reason,
        containers=[member.name for member in manifest.members],
        left_out=work.reader.contents.left_out,
    )
