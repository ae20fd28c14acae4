"""What operations have come to, as an action's events tell it."""

from __future__ import annotations

from agent.checkpoint import CheckpointRequest
from agent.messages.model import CheckpointOutcome, RestoredMember, RestoreOutcome
from agent.report import Captured, CheckpointResult, RestoreResult


def so_far(
    captured: Captured, request: CheckpointRequest, path: str, platform: str
) -> CheckpointOutcome:
    """A checkpoint that is captured, and has still to be stored."""
    return CheckpointOutcome(
        checkpoint_id=captured.checkpoint_id,
        path=path,
        name=request.name,
        frozen_seconds=captured.frozen_seconds,
        wall_seconds=round(sum(captured.phases.values()), 6),
        cuda_seconds=captured.cuda_seconds,
        phases=captured.phases,
        bytes_raw=captured.bytes_raw,
        streams=request.streams,
        codec=str(request.compression),
        containers=tuple(member.label for member in request.members),
        platform=platform,
    )


def checkpointed(result: CheckpointResult, platform: str) -> CheckpointOutcome:
    """A checkpoint that is there."""
    return CheckpointOutcome(
        checkpoint_id=result.checkpoint_id,
        path=result.path,
        name=result.name,
        frozen_seconds=result.frozen_seconds,
        wall_seconds=result.wall_seconds,
        phases=result.phases,
        bytes_raw=result.bytes_raw,
        bytes_stored=result.bytes_stored,
        chunks=result.chunks,
        streams=result.streams,
        codec=result.codec,
        streamed=result.streamed,
        fallback_reason=result.fallback_reason,
        containers=tuple(result.containers),
        platform=platform,
        cuda_seconds=result.cuda_seconds,
        gpus=tuple(result.gpus),
    )


def restored(result: RestoreResult) -> RestoreOutcome:
    """A restore all of whose members run."""
    return RestoreOutcome(
        path=result.path,
        wall_seconds=result.wall_seconds,
        phases=result.phases,
        bytes_raw=result.bytes_raw,
        bytes_stored=result.bytes_stored,
        members=tuple(
            RestoredMember(each.name, each.container_id, each.pid) for each in result.members
        ),
        not_restored=tuple(result.not_restored),
    )
