"""Which checkpoint a pod gets, and every reason why it does not. All of it blocks.

What is asked for was written by a pod's author, who may be anybody: no checkpoint of another
namespace is ever given to a pod, whatever it is called and wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.actions.places import allowed_checkpoint
from agent.chunks import ChunkReader, read_image, read_manifest
from agent.errors import (
    AgentError,
    BundleInvalid,
    CheckpointCorrupt,
    CheckpointNotFound,
    FormatTooNew,
    InvalidArgument,
)
from agent.host.runc import parse_config
from agent.manifest import Manifest, Member
from agent.pods.annotations import CRIO_TYPE, identify
from agent.runtime.api import path_of_name
from agent.runtime.names import Names
from agent.settings import Settings
from agent.store import Store, checkpoint_path, open_store

_FIELD: Final = "CHECKPOINT_RESTORE"

# What containerd and CRI-O write begins like this.
_ENGINES: Final = "io.kubernetes.cri"
_NAMESPACE: Final = "io.kubernetes.cri.sandbox-namespace"

# Characters. It may have a path in it that a pod's author has made up, of any length; whoever is
# told takes lines of 64 KiB.
_LONGEST_REASON: Final = 4000


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that a pod may have."""

    store: Store
    manifest: Manifest

    @property
    def path(self) -> str:
        """Where it is, as requests name it."""
        return checkpoint_path(self.store, self.manifest.checkpoint_id)


class Sources:
    """Finds them. Any thread may ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = Names()

    def find(self, wanted: str, namespace: str) -> Source:
        """The checkpoint at a path, or the newest one of a name, for a pod of a namespace.

        Raises:
            InvalidArgument: it may not be had from there, or by this pod.
            CheckpointNotFound, CheckpointCorrupt, FormatTooNew, StoreFailed
            RestoreFailed: the Actions API could not be asked.
        """
        settings = self._settings
        if is_path(wanted):
            return _at(wanted, namespace, settings)
        source = self._newest(wanted, namespace)
        if source is None and settings.restore.api_url:
            path = path_of_name(wanted, settings.restore)
            source = _at(path, namespace, settings) if path else None
        if source is None:
            raise CheckpointNotFound(f"the name {wanted!r}, of a pod in namespace {namespace}")
        return source

    def _newest(self, name: str, namespace: str) -> Source | None:
        store = open_store(self._settings.storage.store)
        for checkpoint_id in self._names.newest_first(store, name, namespace):
            try:
                source = Source(store, read_manifest(store, checkpoint_id))
                if source.manifest.name != name:
                    self._names.forget(checkpoint_id)
                elif _may_have(source, namespace):
                    return _checked(source)
            except (CheckpointNotFound, CheckpointCorrupt, FormatTooNew):
                # Deleted or damaged since; an older one is better than none.
                self._names.forget(checkpoint_id)
        return None


def is_path(wanted: str) -> bool:
    """Whether that is one checkpoint, and not whichever of a name is the newest."""
    return wanted.startswith("/") or "://" in wanted


def _at(path: str, namespace: str, settings: Settings) -> Source:
    store, checkpoint_id = allowed_checkpoint(path, settings.storage, _FIELD)
    source = Source(store, read_manifest(store, checkpoint_id))
    if not _may_have(source, namespace):
        raise InvalidArgument(_FIELD, f"{path} is no checkpoint of namespace {namespace}")
    return _checked(source)


def _may_have(source: Source, namespace: str) -> bool:
    if source.manifest.pod is not None:
        return source.manifest.pod.namespace == namespace
    # It was taken of containers by their ids. They may be a pod's all the same.
    return all(
        _namespace(source, member) in (None, namespace) for member in source.manifest.members
    )


def _namespace(source: Source, member: Member) -> str | None:
    """That of the pod that a member was a container of, by its configuration; None of none."""
    image = member.image("config.json")
    if image is None:
        return None
    try:
        content = read_image(ChunkReader(source.store, source.manifest), image)
        annotations = parse_config(content, Path(member.bundle or "/")).get("annotations")
    except (ValueError, BundleInvalid) as error:
        raise CheckpointCorrupt(source.path, f"{member.name}: {error}") from error
    if not isinstance(annotations, dict):
        return None
    noted = {key: value for key, value in annotations.items() if isinstance(value, str)}
    identity = identify(noted, [])
    if identity is not None:
        return identity.pod.namespace
    # What an engine has written and nobody understands is a pod's all the same: no namespace is
    # called "". The oldest containerds note no UID, without which there is no identity; with CRI-O
    # their key is what a pod's author has written.
    if not any(key.startswith(_ENGINES) for key in noted):
        return None
    return "" if CRIO_TYPE in noted else noted.get(_NAMESPACE, "")


def _checked(source: Source) -> Source:
    """Raises InvalidArgument when there is nothing in it that could run in a pod."""
    if source.manifest.kind == "rootfsonly":
        raise InvalidArgument(_FIELD, "it has root filesystems only: there is nothing to run")
    if any(member.kind != "runc" for member in source.manifest.members):
        raise InvalidArgument(_FIELD, "it is of processes, not of containers")
    return source


def reason_of(error: AgentError) -> str:
    """What failed, in a line, with the last of CRIU's words: its log goes with the operation."""
    text, _, _ = str(error).partition("\nlog file:")
    tail = getattr(error, "log_tail", "").strip().splitlines()
    # Paths may have bytes in them that are no text.
    words = ": ".join([text, *tail[-1:]]).encode(errors="replace").decode()
    reason = " ".join(words.split())
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."
