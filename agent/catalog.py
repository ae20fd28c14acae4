"""What checkpoints a store holds, and how they leave it. Every call blocks."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent.chunks import checkpoint_path, read_manifest
from agent.errors import CheckpointCorrupt, CheckpointNotFound, FormatTooNew
from agent.manifest import CHECKPOINT_ID, MANIFEST, Manifest
from agent.store import Store

# Manifests read at a time: against an object store it is the waiting that takes the time.
READERS: Final = 8

_STREAM: Final = re.compile(r"/stream-[0-9]{3}\Z")


@dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """One line of ``list``. ``problem`` says why everything after it is unknown.

    ``gpus`` are models of those that it used, one for each.
    """

    checkpoint_id: str
    path: str
    problem: str | None = None
    name: str | None = None
    created_at: str | None = None
    kind: str | None = None
    targets: tuple[str, ...] = ()
    bytes_raw: int | None = None
    bytes_stored: int | None = None
    codec: str | None = None
    streams: int | None = None
    frozen_seconds: float | None = None
    gpus: tuple[str, ...] = ()


def list_checkpoints(store: Store) -> list[CheckpointSummary]:
    """All committed checkpoints, newest first, those that cannot be read last.

    Raises:
        StoreFailed: the store cannot be read.
    """
    names = [name for name in store.directories() if re.fullmatch(CHECKPOINT_ID, name)]
    with ThreadPoolExecutor(READERS, thread_name_prefix="list") as pool:
        found = [one for one in pool.map(lambda name: _summary(store, name), names) if one]
    return sorted(found, key=lambda one: one.created_at or "", reverse=True)


def delete(store: Store, checkpoint_id: str) -> None:
    """Remove a checkpoint: its manifest first, so that it never exists without its streams.

    A damaged one can be deleted too. Files that are no part of a checkpoint stay.

    Raises:
        CheckpointNotFound: there is none.
        StoreFailed: it may exist no more, with streams left that nobody sees.
    """
    objects = _objects(store, checkpoint_id)
    streams = [path for path in objects if _STREAM.search(path)]
    manifest = f"{checkpoint_id}/{MANIFEST}"
    # Other programs have files of that name: without a stream beside it, it is not ours.
    if manifest not in objects or not streams:
        raise CheckpointNotFound(path=checkpoint_path(store, checkpoint_id))
    for path in (manifest, *streams):
        store.delete(path)


def _objects(store: Store, checkpoint_id: str) -> list[str]:
    # Anything else has no checkpoints, and no business in a store's path.
    if not re.fullmatch(CHECKPOINT_ID, checkpoint_id):
        raise CheckpointNotFound(path=checkpoint_path(store, checkpoint_id))
    return [found.path for found in store.list(checkpoint_id)]


def _summary(store: Store, checkpoint_id: str) -> CheckpointSummary | None:
    path = checkpoint_path(store, checkpoint_id)
    try:
        return _summarize(path, read_manifest(store, checkpoint_id))
    except CheckpointNotFound:
        return None  # being written, or deleted, or left behind
    except CheckpointCorrupt as error:
        return CheckpointSummary(checkpoint_id, path, problem=f"damaged: {error.reason}")
    except FormatTooNew as error:
        return CheckpointSummary(checkpoint_id, path, problem=str(error))


def _summarize(path: str, manifest: Manifest) -> CheckpointSummary:
    return CheckpointSummary(
        checkpoint_id=manifest.checkpoint_id,
        path=path,
        name=manifest.name,
        created_at=manifest.created_at,
        kind=manifest.members[0].kind,
        targets=tuple(member.target for member in manifest.members),
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        codec=manifest.codec,
        streams=len(manifest.streams),
        frozen_seconds=manifest.frozen_seconds,
        gpus=tuple(manifest.gpus.used_models) if manifest.gpus else (),
    )
