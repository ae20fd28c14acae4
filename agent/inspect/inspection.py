"""What a checkpoint holds, as its own images tell: processes, memory, files, times. Blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.chunks import ChunkCache, ChunkReader, checkpoint_path, read_manifest
from agent.config import MIB
from agent.inspect.criu_images import CriuImages
from agent.inspect.processes import Process, processes, shared_memory
from agent.manifest import Member
from agent.store import Store

# Small images share chunks; a checkpoint of a thousand processes has them in about ten.
CACHE = 32 * MIB


@dataclass(frozen=True, slots=True)
class ImageSize:
    """One image and its length in bytes, uncompressed."""

    name: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class MemberInspection:
    """One container or process tree. Sizes in bytes.

    ``criu_stats`` is CRIU's own account of the dump: times in microseconds, pages in numbers.
    """

    name: str
    kind: str
    target: str
    pid: int
    bundle: str | None
    runc_root: str | None
    terminal: bool
    options: dict[str, object]
    processes: list[Process]
    shared_memory: int
    images: list[ImageSize]
    criu_stats: dict[str, int]


@dataclass(frozen=True, slots=True)
class VolumeSize:
    """A volume that the members share and the length in bytes of its tar."""

    name: str
    medium: str
    size: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """What ``inspect`` returns and prints. Sizes in bytes, times in seconds.

    ``gpus`` is as the manifest has it; None when no member used one.
    """

    checkpoint_id: str
    path: str
    name: str | None
    kind: str
    pod: dict[str, str] | None
    created_at: str
    agent_version: str
    host: dict[str, str | None]
    codec: str
    streams: int
    chunks: int
    bytes_raw: int
    bytes_stored: int
    streamed: bool
    fallback_reason: str | None
    frozen_seconds: float
    phases: dict[str, float]
    gpus: dict[str, Any] | None
    members: list[MemberInspection]
    volumes: list[VolumeSize]


def inspect(store: Store, checkpoint_id: str) -> Inspection:
    """Look into a checkpoint. Reads its small images, never the memory of its processes.

    Raises:
        CheckpointNotFound, CheckpointCorrupt, FormatTooNew, StoreFailed: of the checkpoint.
        MissingTool: pycriu, which knows CRIU's messages, is not installed.
    """
    manifest = read_manifest(store, checkpoint_id)
    cache = ChunkCache(ChunkReader(store, manifest), CACHE)
    path = checkpoint_path(store, checkpoint_id)
    return Inspection(
        checkpoint_id=checkpoint_id,
        path=path,
        name=manifest.name,
        kind=manifest.kind,
        pod=manifest.pod.model_dump() if manifest.pod else None,
        created_at=manifest.created_at,
        agent_version=manifest.agent_version,
        host=manifest.host.model_dump(),
        codec=manifest.codec,
        streams=len(manifest.streams),
        chunks=len(manifest.chunks),
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        streamed=manifest.streamed,
        fallback_reason=manifest.fallback_reason,
        frozen_seconds=manifest.frozen_seconds,
        phases=manifest.phases,
        gpus=manifest.gpus.model_dump() if manifest.gpus else None,
        members=[_member(one, CriuImages(one, cache, path)) for one in manifest.members],
        volumes=[VolumeSize(one.name, one.medium, one.image.size) for one in manifest.volumes],
    )


def _member(member: Member, images: CriuImages) -> MemberInspection:
    stats = images.first("stats-dump", "stats_entry")
    return MemberInspection(
        name=member.name,
        kind=member.kind,
        target=member.target,
        pid=member.pid,
        bundle=member.bundle,
        runc_root=member.runc_root,
        terminal=member.terminal,
        options=member.options.model_dump(),
        processes=processes(images),
        shared_memory=shared_memory(images),
        images=[ImageSize(one.name, one.kind, one.size) for one in member.images],
        criu_stats={}
        if stats is None
        else {field.name: value for field, value in stats.dump.ListFields()},
    )
