"""What an agent that died had completed: told from what is stored and what runs."""

from __future__ import annotations

from agent.actions.rows import Attempt
from agent.actions.settling import unknown
from agent.actions.worker import Untold
from agent.chunks import read_manifest
from agent.errors import (
    CheckpointCorrupt,
    CheckpointNotFound,
    FormatTooNew,
    InvalidArgument,
    RestoreUnknown,
    StoreFailed,
    TargetNotFound,
)
from agent.host import process, runc
from agent.host.boot import Moment
from agent.manifest import Manifest, Member
from agent.messages.model import ActionRequest, CheckpointOutcome, RestoredMember, RestoreOutcome
from agent.restore import RestoreRequest
from agent.restore.target import container_of
from agent.store import Store, open_store
from agent.store.file import FileStore


def stored(request: ActionRequest, attempt: Attempt) -> tuple[Store, Manifest] | None:
    """The store, and the checkpoint of an attempt in it; None when it is not there. Blocks.

    Raises:
        Untold: the store cannot be asked.
        CheckpointUnknown, RestoreUnknown: what is there cannot be read.
    """
    try:
        store = open_store(attempt.store)
        return store, read_manifest(store, attempt.checkpoint_id)
    except CheckpointNotFound:
        if isinstance(store, FileStore) and not store.is_there:
            # Every attempt begins with it: what was mounted there is not mounted now.
            raise Untold(f"read {store.url}: the directory is not there") from None
        return None
    except (StoreFailed, InvalidArgument) as error:
        # Not valid any more: its credentials are gone from where they were, for example.
        raise Untold(str(error)) from error
    except (CheckpointCorrupt, FormatTooNew) as error:
        raise unknown(request, attempt, str(error)) from error


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
    manifest: Manifest, path: str, request: RestoreRequest, begun: Moment | None
) -> RestoreOutcome | None:
    """A restore all of whose members run, and did not before it was begun. How long it took is
    not known.

    Raises:
        RestoreUnknown: they run, and nobody knows when it was begun.
    """
    members = [each for each in manifest.members if request.member in (None, each.name)]
    restored = [_running(request, member) for member in members]
    found = tuple(each for each in restored if each is not None)
    if not found or len(found) < len(restored):
        return None
    if begun is None:
        # An older one that only has the same name looks the same.
        raise RestoreUnknown(path, "an older version of the agent began it, and noted no time")
    if not all(begun.is_before(each.pid) for each in found):
        return None
    return RestoreOutcome(
        path=path,
        wall_seconds=0.0,
        phases={},
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        members=found,
    )


def _running(request: RestoreRequest, member: Member) -> RestoredMember | None:
    """What runs under a member's name, whoever has started it."""
    if member.kind == "process":
        return RestoredMember(member.name, "", member.pid) if process.is_alive(member.pid) else None
    target = container_of(request, member)
    try:
        container = runc.load(target)
    except TargetNotFound:
        return None
    if container.status == "stopped":
        return None
    return RestoredMember(member.name, target.container, container.pid)
