"""Writable layers of a restore's members, put back where their bundles are as yet unused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from agent.errors import AgentError
from agent.host.shield import to_the_end
from agent.manifest import ROOTFS_DIFF, Image, Manifest
from agent.operation.layers import FreshLayer, find_fresh
from agent.operation.workplace import Workplace
from agent.report import Phases
from agent.restore.request import RestoreTarget
from agent.restore.trees import unpack
from agent.store import Store


class Layers:
    """Those of one restore: all of them are as they were, or all that can be are filled.

    Attributes:
        filled: the names of members whose layers are back.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        targets: Sequence[RestoreTarget],
        places: Sequence[Workplace],
        phases: Phases,
    ) -> None:
        self.filled: set[str] = set()
        self._store, self._manifest, self._phases = store, manifest, phases
        self._members = list(zip(targets, places, strict=True))
        self._begun: list[FreshLayer] = []

    async def fill(self) -> None:
        """Unpack each layer into the overlay that is its bundle's root filesystem, if it is empty.

        What is not empty is left as it is: it may be the very layer, as on the machine that the
        checkpoint was taken on.

        Raises:
            RestoreFailed, CheckpointCorrupt, StoreFailed: call :meth:`undo`.
        """
        for target, place in self._members:
            image = self._layer_of(target)
            if image is not None and target.bundle is not None:
                await self._fill(target, place, image)

    def _layer_of(self, target: RestoreTarget) -> Image | None:
        for member in self._manifest.members:
            if member.name == target.member.name:
                return member.image(ROOTFS_DIFF)
        return None

    async def _fill(self, target: RestoreTarget, place: Workplace, image: Image) -> None:
        found = await asyncio.to_thread(find_fresh, target.bundle) if target.bundle else None
        if found is None:
            return
        layer = FreshLayer(place, found, target.name)
        self._begun.append(layer)
        put = partial(
            unpack, self._store, self._manifest, image, log=place.work / "tar.log", lock=place.lock
        )
        with self._phases.measure("unpack"):
            if await layer.fill(put):
                self.filled.add(target.member.name)

    async def undo(self) -> None:
        """Empty again what was filled.

        Raises:
            AgentError, OSError: that cannot be done with one of them; a later recovery tries again.
        """
        failure: Exception | None = None
        for layer in reversed(self._begun):
            try:
                await to_the_end(layer.undo())
            except (AgentError, OSError) as error:
                failure = failure or error
        if failure is not None:
            for _, place in self._members:
                place.keep()
            raise failure
