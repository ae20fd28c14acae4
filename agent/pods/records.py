"""Containers of pods as runc has them written down: one ``state.json`` each, below its root.

An agent lists pods every few seconds, and a state file does not change while its container runs:
what was read is kept as long as the file is the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from agent.host import process
from agent.host.cgroup import Freezer, freezer
from agent.host.runc import is_valid_id
from agent.pods.annotations import Identity, identify, own
from agent.pods.files import REMEMBERED, Stamp, read_object, stamp_of
from agent.targets import RuncTarget


@dataclass(frozen=True, slots=True)
class Record:
    """What runc knows of a container, or of a sandbox, of a pod."""

    target: RuncTarget
    identity: Identity
    pid: int
    started: int
    created: datetime
    bundle: Path
    freezer: Freezer | None
    annotations: Mapping[str, str]

    @property
    def is_sandbox(self) -> bool:
        """Whether it is the `pause` container."""
        return not self.identity.container

    def is_alive(self) -> bool:
        """Whether the process runs that runc started, and not a later one with the same pid."""
        return process.is_alive(self.pid, self.started)

    def status(self) -> str:
        """``created``, ``running``, ``paused`` or ``stopped``, as of now."""
        if not self.is_alive():
            return "stopped"
        # Until `runc start` its process is runc itself, which waits at this FIFO.
        if os.path.lexists(self.target.root / self.target.container / "exec.fifo"):
            return "created"
        try:
            frozen = self.freezer is not None and self.freezer.is_frozen()
        except (OSError, ValueError):  # what the state calls a cgroup is none
            frozen = False
        return "paused" if frozen else "running"


def records(roots: Iterable[Path]) -> Iterator[Record]:
    """Every container of a pod below runc's roots, running or not; what is no such thing is not."""
    for root, entry in entries(roots):
        path = Path(entry) / "state.json"
        stamp = stamp_of(path)
        if stamp is None:
            continue
        found = _read(root, path, stamp)
        if found is not None:
            yield found


def entries(roots: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The containers' directories below each root; roots that are not there have none."""
    for root in dict.fromkeys(roots):
        with contextlib.suppress(OSError), os.scandir(root) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False) and is_valid_id(entry.name):
                    yield root, entry.path


@lru_cache(maxsize=REMEMBERED)
def _read(root: Path, path: Path, stamp: Stamp) -> Record | None:
    state = read_object(path)
    if state is None:
        return None
    try:
        return _parse(RuncTarget(path.parent.name, root), state)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _parse(target: RuncTarget, state: dict[str, object]) -> Record | None:
    config = state["config"]
    labels = config["labels"] if isinstance(config, dict) else None
    cgroups = state["cgroup_paths"] or {}
    if not isinstance(labels, list) or not isinstance(cgroups, dict):
        return None
    annotations = dict(label.partition("=")[::2] for label in labels)
    identity = identify(annotations, [str(path) for path in cgroups.values()])
    bundle = Path(annotations["bundle"])
    if identity is None or not bundle.is_absolute():
        return None
    return Record(
        target=target,
        identity=identity,
        pid=_integer(state["init_process_pid"]),
        started=_integer(state["init_process_start"]),
        created=_time(state["created"]),
        bundle=bundle,
        freezer=freezer(cgroups),
        annotations=own(annotations),
    )


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _time(value: object) -> datetime:
    """A time as Go writes it, to the microsecond."""
    if not isinstance(value, str):
        raise TypeError(value)
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
