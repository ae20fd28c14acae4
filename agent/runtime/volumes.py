"""A pod's volumes on their way back to what they were at the checkpoint. All of it blocks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

from agent.errors import RestoreFailed, StoreFailed
from agent.host import aside
from agent.manifest import Volume as StoredVolume
from agent.runtime.source import Source
from agent.targets import Volume


class Volumes:
    """Those of one container's pod. From any thread."""

    def __init__(self, volumes: Iterable[Volume], source: Source) -> None:
        self._volumes = list(volumes)
        self._stored = {_key(volume): volume for volume in source.manifest.volumes}
        self._chosen: list[Volume] = []
        # Held while they change: a thread outlives whoever was waiting for it.
        self._changing = threading.Lock()
        self._undone = False

    @property
    def returned(self) -> set[str]:
        """Keys of those that this container puts back."""
        return {_key(volume) for volume in self._chosen}

    def wanted(self, done: set[str]) -> set[str]:
        """Keys of those that the checkpoint has, and that nobody has put back yet."""
        return {_key(volume) for volume in self._volumes} & self._stored.keys() - done

    def choose(self, done: set[str]) -> list[tuple[Volume, StoredVolume]]:
        """Those that are wanted, which are this container's from now on."""
        wanted = self.wanted(done)
        self._chosen = [volume for volume in self._volumes if _key(volume) in wanted]
        return [(volume, self._stored[_key(volume)]) for volume in self._chosen]

    def put_aside(self, volume: Volume) -> None:
        """Make room for what it was.

        Raises:
            StoreFailed: it cannot be written.
            RestoreFailed: all of it has been undone meanwhile.
        """
        with self._changing:
            if self._undone:
                raise RestoreFailed(volume.name, "it was given up")
            try:
                aside.put(volume.source)
            except OSError as error:
                raise StoreFailed("write", str(volume.source), error.strerror or "") from error

    def keep(self) -> None:
        """What was kept to go back to can go."""
        for volume in self._chosen:
            with contextlib.suppress(OSError):
                aside.forget(volume.source)

    def undo(self) -> None:
        """Make them what they were before."""
        with self._changing:
            self._undone = True
            for volume in self._chosen:
                with contextlib.suppress(OSError):
                    aside.put_back(volume.source)


def recover(volumes: Iterable[Volume], done: set[str]) -> None:
    """Make volumes what they were before an attempt that was killed at both ends.

    Whoever starts next may start cold, and undoes only what is its own.

    Args:
        done: keys of those that have come back, and are what they are to be.

    Raises:
        StoreFailed: one cannot be written.
    """
    for volume in volumes:
        if _key(volume) not in done:
            try:
                aside.recover(volume.source)
            except OSError as error:
                raise StoreFailed("write", str(volume.source), error.strerror or "") from error


def _key(volume: Volume | StoredVolume) -> str:
    """What makes two volumes the same one."""
    return f"{volume.medium}/{volume.name}"
