"""A container's writable layer and the one from its checkpoint change places.

The agent has unpacked that one beside the other. Only here can they be exchanged: it takes the
mount namespace in which the engine has mounted the container's root filesystem.
"""

from __future__ import annotations

import os

from agent.host import emptying

# Type checkers know the name; typing itself would take 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.host.remount import Layer

# What the container's layer from the checkpoint is called after a failure, until it is removed.
FAILED_SUFFIX = ".failed"

# What the container's own layer is called while the other is in its place.
COLD_SUFFIX = ".cold"


class Swap:
    """The layers of one container, whose root filesystem is at ``root``."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._cold: str | None = None
        self._upper = ""
        # Taken down and not yet up again: for a moment, or because the kernel refuses it with
        # another layer than the one it was mounted with first (index=on).
        self._down: Layer | None = None

    def upper(self) -> str | None:
        """The upper directory of the overlay that is mounted there, None for anything else."""
        # Imported here, as in the whole module: 5 ms that only containers with a layer need.
        from agent.host import remount
        from agent.host.mountinfo import read, topmost

        try:
            mount = topmost(os.path.realpath(os.fsencode(self._root)), read())
            if mount is None or mount.kind != b"overlay" or mount.root != b"/":
                return None
            return os.fsdecode(remount.Layer(mount).upper)
        except (OSError, remount.RemountFailed):
            return None

    def put_in(self, directory: str) -> None:
        """Make ``directory`` the writable layer. Raises RemountFailed and OSError.

        It is that already when a restore is tried for the second time.
        """
        from agent.host import remount

        if self._cold is not None:
            return
        self._down = remount.take_down(self._root)
        try:
            self._upper = os.fsdecode(self._down.upper)
            cold = self._upper + COLD_SUFFIX
            os.rename(self._upper, cold)
            try:
                os.rename(directory, self._upper)
            except OSError:
                os.rename(cold, self._upper)
                raise
            self._cold = cold
        finally:
            self._put_up(self._down)

    def put_back(self) -> None:
        """Make the container's own layer the writable one again. Raises as put_in does."""
        from agent.host import remount

        if self._cold is None and self._down is None:
            return
        if self._down is None:
            self._down = remount.take_down(self._root)
        failed = self._upper + FAILED_SUFFIX
        try:
            if self._cold is not None:
                os.rename(self._upper, failed)
                os.rename(self._cold, self._upper)
                self._cold = None
        finally:
            self._put_up(self._down)
        emptying.remove(failed)

    def _put_up(self, layer: Layer) -> None:
        from agent.host import remount

        remount.put_up(layer)
        self._down = None
