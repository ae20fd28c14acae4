"""What an agent that died had completed: told from what is stored and what runs."""

from __future__ import annotations

from datetime import datetime

import psutil

from agent.errors import TargetNotFound
from agent.host import runc
from agent.manifest import Manifest, Member
from agent.messages.model import CheckpointOutcome, RestoredMember, RestoreOutcome
from agent.restore import RestoreRequest
from agent.restore.target import container_of

# Seconds by which the kernel's idea of when a process began may be early: it counts 10 ms ticks
# since a boot whose time it rounds to seconds.
_CLOCK_ERROR = 2.0


def committed(manifest: Manifest, path: str, platform: str) -> CheckpointOutcome:
    """A checkpoint whose manifest is there: it is whole. The time of its commit is not known."""
    return CheckpointOutcome(
        checkpoint_id=manifest.checkpoint_id,
        path=path,
        name=manifest.name,
        frozen_seconds=manifest.frozen_seconds,
        wall_seconds=round(sum(manifest.phases.values()), 6),
        phases=manifest.phases,
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        chunks=len(manifest.chunks),
        streams=len(manifest.streams),
        codec=manifest.codec,
        streamed=manifest.streamed,
        fallback_reason=manifest.fallback_reason,
        containers=tuple(member.name for member in manifest.members),
        platform=platform,
        gpus=tuple(manifest.gpus.used_models) if manifest.gpus else (),
    )


def running(
    manifest: Manifest, path: str, request: RestoreRequest, accepted: datetime
) -> RestoreOutcome | None:
    """A restore all of whose members run, made since it was accepted. How long it took is not
    known.
    """
    members = [each for each in manifest.members if request.member in (None, each.name)]
    restored = [_restored(request, member, accepted.timestamp()) for member in members]
    found = tuple(each for each in restored if each is not None)
    if not found or len(found) < len(restored):
        return None
    return RestoreOutcome(
        path=path,
        wall_seconds=0.0,
        phases={},
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        members=found,
    )


def _restored(request: RestoreRequest, member: Member, since: float) -> RestoredMember | None:
    if member.kind == "process":
        return RestoredMember(member.name, "", member.pid) if _began(member.pid, since) else None
    target = container_of(request, member)
    try:
        container = runc.load(target)
    except TargetNotFound:
        return None
    if container.status == "stopped" or not _began(container.pid, since):
        return None
    return RestoredMember(member.name, target.container, container.pid)


def _began(pid: int, since: float) -> bool:
    """Whether it is a process of since then; an older one only has the same name."""
    try:
        return psutil.Process(pid).create_time() >= since - _CLOCK_ERROR
    except psutil.NoSuchProcess:
        return False
