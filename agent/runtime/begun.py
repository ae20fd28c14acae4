"""Which pods have begun on this node, by their UIDs: durable, unlike what sandboxes.py keeps.

    <state_dir>/begun/<uid>

After a restart of the machine a kubelet makes a pod that it knows a new sandbox, with the UID, the
annotations, the volumes and the claims that it had. What it asked for then is as old as the pod,
and what has been written since is newer.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from agent.export import sync

# Pods that are not known to be gone. A kubelet removes its directory for one that is; where none is
# known, as of pods that `crictl` makes, the oldest are forgotten: not by age, since a pod may run
# for years. A node has 110 pods by default, and a file takes a block of 4 KiB: 16 MiB in all.
_MOST: Final = 4096

# What becomes the name of a file. As in agent/pods/annotations.py.
_UID: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class Begin(BaseModel):
    """When, and in which sandbox, a pod has last begun: from a checkpoint, or cold.

    Attributes:
        at: seconds since 1970.
        directory: the kubelet's for this pod, "" where it is not known.
    """

    model_config = ConfigDict(extra="ignore")

    sandbox: str
    at: float
    directory: str = ""

    def is_over(self) -> bool:
        """Whether the kubelet has removed the pod. One that moved its directory has not."""
        path = Path(self.directory)
        return bool(self.directory) and path.parent.is_dir() and not path.is_dir()


class Begun:
    """Those that have. Everything blocks; any thread may ask."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def of(self, uid: str) -> Begin | None:
        """What is known of a pod; None when it has not begun here."""
        return _read(self._directory / uid) if _UID.fullmatch(uid) else None

    def note(self, uid: str, begin: Begin) -> None:
        """Write down that a pod has begun; durable when this returns. Raises OSError.

        Nothing changes where that is written down of this sandbox already, or of a later one.
        """
        if not _UID.fullmatch(uid):
            return
        known = self.of(uid)
        if known and (known.sandbox == begin.sandbox or known.at >= begin.at):
            return
        is_new = not self._directory.is_dir()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_new:
            sync(self._directory.parent)
        elif known is None:
            self._prune()
        new = self._directory / f".{uid}"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(begin.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        new.rename(self._directory / uid)
        sync(self._directory)

    def _prune(self) -> None:
        """Forget pods that are gone, and of others as many as have to be."""
        kept: list[tuple[float, Path]] = []
        for path in self._directory.glob("[!.]*"):
            begin = _read(path)
            if begin is None or begin.is_over():
                _forget(path)
            else:
                kept.append((begin.at, path))
        for _, path in sorted(kept, reverse=True)[_MOST - 1 :]:
            _forget(path)


def _read(path: Path) -> Begin | None:
    try:
        return Begin.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
