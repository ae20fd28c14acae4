"""How long heartbeats' checkpoints are kept: so many of each pod, whatever its UID was.

A heartbeat's checkpoint id begins with a hash of whose it is, so that nobody has to read all that a
shared store holds to find them. Each is believed only when its manifest says the same. Calls block.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from agent import catalog
from agent.chunks import read_manifest
from agent.errors import CheckpointCorrupt, CheckpointNotFound, FormatTooNew
from agent.manifest import Manifest
from agent.operation import journal
from agent.store import Store

# UUIDs of version 8 (RFC 9562), whose bits are their maker's: 60 of the hash, 62 random ones.
_ID: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-)[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose heartbeats count together: those of a pod that comes back under its name do.

    ``checkpoint_name`` is CHECKPOINT_NAME or the annotation; another one begins another row.
    """

    cluster: str
    namespace: str
    pod: str
    checkpoint_name: str | None


def new_id(owner: Owner) -> str:
    """An id for the next checkpoint of this owner."""
    names = (owner.cluster, owner.namespace, owner.pod, owner.checkpoint_name or "")
    # No name has a zero byte in it.
    whose = hashlib.sha256("\0".join(names).encode()).digest()
    value = bytearray(whose[:8] + uuid.uuid4().bytes[8:])
    value[6] = 0x80 | value[6] & 0x0F
    return str(uuid.UUID(bytes=bytes(value)))


@dataclass(frozen=True, slots=True)
class Row:
    """The heartbeats of one owner, oldest first: by the time they were made, then by their ids.

    ``newest`` is the index of the one that was just made. What comes behind it claims to be newer,
    as another node's clock may say.
    """

    heartbeats: tuple[Manifest, ...]
    newest: int

    def surplus(self, keep: int) -> list[str]:
        """Those older than ``newest`` of which ``keep`` newer ones have every member.

        So one of some of a pod's containers, made while the others were down, replaces none of the
        whole pod.
        """
        members = [_members(each) for each in self.heartbeats]
        return [
            each.checkpoint_id
            for number, each in enumerate(self.heartbeats[: self.newest])
            if 0 < keep <= sum(members[number] <= newer for newer in members[number + 1 :])
        ]

    def lost(self) -> list[str]:
        """Names of members that the one before ``newest`` has, and it has not."""
        if self.newest == 0:
            return []
        before, latest = self.heartbeats[self.newest - 1], self.heartbeats[self.newest]
        return sorted(_members(before) - _members(latest))


def row(store: Store, newest: str) -> Row | None:
    """The heartbeats that count together with one; None when it is none itself.

    Args:
        newest: the id of the one that was just made.

    Raises:
        CheckpointNotFound, CheckpointCorrupt: ``newest`` is not there any more, or damaged.
        StoreFailed: the store cannot be read.
    """
    prefix = _ID.fullmatch(newest)
    latest = read_manifest(store, newest)
    if prefix is None or _whose(latest) is None:
        return None
    names = [name for name in store.directories() if name.startswith(prefix[1])]
    with ThreadPoolExecutor(catalog.READERS, thread_name_prefix="retention") as pool:
        found = [one for one in pool.map(lambda name: _readable(store, name), names) if one]
    mine = {
        (age, each.checkpoint_id): each
        for each in found
        if _whose(each) == _whose(latest) and (age := _age(each)) is not None
    }
    order = sorted(mine)
    ids = [name for _, name in order]
    if newest not in ids:
        return None
    return Row(tuple(mine[key] for key in order), ids.index(newest))


def delete(store: Store, checkpoint_id: str, state_dir: Path) -> None:
    """As :func:`agent.catalog.delete`; what a crash or a failure leaves of it, recovery removes.

    Raises:
        CheckpointNotFound: there is none.
        StoreFailed: it may exist no more; its streams are removed as soon as the store answers.
    """
    record = journal.Record(
        kind="delete",
        operation=journal.new_id(),
        checkpoint_id=checkpoint_id,
        store=store.url,
        target=f"checkpoint {checkpoint_id}",
    )
    operation = journal.begin(state_dir, record)
    try:
        catalog.delete(store, checkpoint_id)
    except CheckpointNotFound:
        operation.remove()
        raise
    except BaseException:
        operation.release()
        raise
    operation.remove()


def being_restored(state_dir: Path) -> set[str]:
    """Ids of what restores on this machine are reading, or died reading."""
    return {each.checkpoint_id for each in journal.records(state_dir) if each.kind == "restore"}


def _readable(store: Store, checkpoint_id: str) -> Manifest | None:
    """What is damaged is nobody's to delete but a person's."""
    try:
        return read_manifest(store, checkpoint_id)
    except (CheckpointNotFound, CheckpointCorrupt, FormatTooNew):
        return None


def _whose(manifest: Manifest) -> tuple[str, str, str | None] | None:
    """None when it is no pod's heartbeat."""
    if manifest.reason != "heartbeat" or manifest.pod is None:
        return None
    return manifest.pod.namespace, manifest.pod.name, manifest.name


def _members(manifest: Manifest) -> frozenset[str]:
    return frozenset(member.name for member in manifest.members)


def _age(manifest: Manifest) -> datetime | None:
    """When it was made; None when it does not say."""
    try:
        made = datetime.fromisoformat(manifest.created_at)
    except ValueError:
        return None
    return made if made.tzinfo else None
