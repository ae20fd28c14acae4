"""One container on its way back: what it needs is fetched, and images are served to its CRIU."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from agent.config import Tools
from agent.errors import RestoreFailed
from agent.host import criu, network, process, runc
from agent.host.cuda import Cuda
from agent.host.injecting import NOTHING
from agent.host.shield import to_the_end
from agent.operation import journal
from agent.operation.attempt import ROLLBACK_TIMEOUT, complaint, install_launcher
from agent.report import Phases
from agent.restore.driver_mounts import driver_mounts, make_points, renew_devices
from agent.restore.gpus import GpuPlan
from agent.restore.serving import Serving
from agent.restore.trees import unpack
from agent.runtime.asked import Asked
from agent.runtime.conversation import Conversation, Creation, HungUp
from agent.runtime.layer import layer_of, make_vacant, place_beside, remove_others
from agent.runtime.lookups import Lookups
from agent.runtime.member import Fitted, find_member, fit
from agent.runtime.source import Source
from agent.runtime.volumes import Volumes

Message = dict[str, Any]


class ClientGone(Exception):
    """What stood in for runc has ended, or was killed, in the middle of it."""


class Restoring:
    """The restore of one member into a container that an engine creates.

    Attributes:
        volumes: the pod's, as far as this container has them.
        fallback_reason: why CRIU could not stream.
    """

    def __init__(
        self,
        source: Source,
        creation: Creation,
        asked: Asked,
        conversation: Conversation,
        *,
        lookups: Lookups,
        tools: Tools,
        cuda: Cuda,
        state_dir: Path,
    ) -> None:
        """Raises InvalidArgument: the checkpoint and the container do not go together."""
        self.phases = Phases()
        self._found = find_member(source, creation, asked)
        self.fallback_reason: str | None = None
        self._source, self._creation, self._asked = source, creation, asked
        self._conversation, self._tools, self._cuda = conversation, tools, cuda
        self._lookups, self._state_dir = lookups, state_dir
        self._place: journal.Operation | None = None
        self._mounts = NOTHING
        self.volumes = Volumes(asked.volumes, source)
        self._layer: Path | None = None
        self._layer_is_in_use = False
        self._cleanup = contextlib.ExitStack()

    async def run(self, done: set[str], *, first: bool) -> int:
        """Bring it back; the pid of its first process, which runs now.

        Args:
            done: keys of volumes that others of the pod have put back.
            first: whether there are no others yet.

        Raises:
            AgentError: it did not come back. The other end undoes what it has done; then
                :meth:`undo` is to be called, and :meth:`close` when the other end is gone.
            ClientGone: it has ended.
        """
        bundles = {self._found.name: self._creation.bundle}
        gpus = await GpuPlan.make(self._cuda, self._source.manifest, bundles)
        fitted = await self._lookups.in_store(
            fit, self._source, self._found, self._asked, first=first
        )
        place = await to_the_end(asyncio.to_thread(self._begin, fitted))
        with self.phases.measure("files"):
            await self._fetch_files(place, done)
        serving = Serving(
            self._source.store,
            self._source.manifest,
            fitted.member,
            place,
            self.phases,
            replaced=fitted.replaced,
        )
        bundle, name = self._creation.bundle, self._found.name
        order = self._order(place, fitted, unfinished=name in gpus.members)
        if self._layer is None:
            # A layer has them already, from when they were made in it.
            await asyncio.to_thread(make_points, self._mounts, bundle, name)
        try:
            pid = await serving.run(lambda: self._attempt(serving, place, order))
            await asyncio.to_thread(renew_devices, pid, bundle, name)
            if name in gpus.members:
                with self.phases.measure("cuda_restore"):
                    await gpus.bring_back(name, pid)
            return pid
        finally:
            self.fallback_reason = serving.fallback_reason

    async def keep(self) -> None:
        """It runs: what was kept to go back to can go."""
        await asyncio.to_thread(self.volumes.keep)

    async def undo(self) -> None:
        """Make the pod's volumes what they were."""
        await asyncio.to_thread(self.volumes.undo)

    def leave(self, *, to_the_other_end: bool = False) -> None:
        """Somebody may still work on it: the recovery removes what is left when nobody does.

        Args:
            to_the_other_end: it is that one, which may be about to make the container's own layer
                its layer again. What lies beside that goes with the container.
        """
        self._layer_is_in_use |= to_the_other_end
        if self._place is not None:
            self._place.keep()

    async def remove(self) -> None:
        """Remove what a `checkpoint-runc` that was killed has left of the container.

        Only where its first process lives: one of that id may also be a cold start that has begun.

        Raises:
            CommandFailed, MissingTool: runc could not be called.
        """
        if self._place is None or (root := self._place.root_alive()) is None:
            return
        process.kill_tree(root)
        target = self._creation.target
        if runc.exists(target):
            await runc.delete(self._tools, target)

    async def open_network(self) -> None:
        """Let packets into the pod's network, which a CRIU that has failed keeps out of it.

        Raises:
            NetworkStuck: it may still keep them out.
        """
        if self._place is not None and self._asked.network is not None:
            await network.unlock(self._asked.network)

    def close(self) -> None:
        """Forget the operation. Blocks."""
        self._cleanup.close()

    def _begin(self, fitted: Fitted) -> journal.Operation:
        target, source = self._creation.target, self._source
        bundle = self._creation.bundle
        config = json.dumps(runc.read_config(bundle)).encode()
        self._mounts = driver_mounts(
            source.store, source.manifest, fitted.member, bundle, self._found.name, config
        )
        lock_name = f"{target} under {target.root}"
        self._cleanup.enter_context(journal.exclusive(self._state_dir, lock_name))
        affected = journal.Affected(
            container=target.container,
            runc_root=str(target.root),
            network=str(self._asked.network) if self._asked.network else None,
            of_engine=True,
        )
        record = journal.Record(
            kind="restore",
            operation=journal.new_id(),
            checkpoint_id=source.manifest.checkpoint_id,
            store=source.store.url,
            target=target.container,
            affected=(affected,),
        )
        place = self._place = journal.begin(self._state_dir, record)
        self._cleanup.callback(place.remove)
        options = criu.unknown_to_runc(fitted.member.options)
        extra = [*options, *fitted.joined, *self._mounts.words]
        install_launcher(place, self._tools, extra)
        return place

    async def _fetch_files(self, place: journal.Operation, done: set[str]) -> None:
        """Volumes go where they belong; the layer stays beside its place until it is needed."""
        source, log = self._source, place.work / "tar.log"
        wanted = self.volumes.choose(done)
        # The other end can put back what was in them, should this one be killed.
        paths = [str(volume.source) for volume, _ in wanted]
        await self._tell("volumes", {"paths": paths})
        for volume, stored in wanted:
            await asyncio.to_thread(self.volumes.put_aside, volume)
            await unpack(
                source.store,
                source.manifest,
                stored.image,
                volume.source,
                log=log,
                lock=place.lock,
            )
        layer = layer_of(self._source, self._found.name)
        if layer is None:
            return
        upper = self._creation.upper
        if upper is None:
            reason = "the checkpoint has a writable layer, and its root filesystem is no overlay"
            raise RestoreFailed(self._found.name, reason)
        self._layer = place_beside(upper)
        self._cleanup.callback(self._remove_other_layers, upper)
        await to_the_end(asyncio.to_thread(make_vacant, self._layer))
        await unpack(source.store, source.manifest, layer, self._layer, log=log, lock=place.lock)

    def _remove_other_layers(self, upper: Path) -> None:
        if not self._layer_is_in_use:
            remove_others(upper)

    def _order(self, place: journal.Operation, fitted: Fitted, *, unfinished: bool) -> Message:
        """What the other end is told, to run runc.

        Args:
            unfinished: whether what runc has restored waits for something that is done here.
        """
        return {
            "images": str(place.images),
            "work": str(place.work),
            "launcher": str(place.launcher),
            "flags": runc.restore_arguments(fitted.member.options),
            "layer": str(self._layer) if self._layer else None,
            "unfinished": unfinished,
        }

    async def _attempt(self, serving: Serving, place: journal.Operation, order: Message) -> int:
        """Have the other end run runc once."""
        content = await self._ask(order, place.lock, serving)
        status, pid = content.get("status"), content.get("pid")
        if status == 0 and isinstance(pid, int) and pid > 0:
            return pid
        if said := content.get("reason"):
            raise RestoreFailed(self._found.name, str(said))
        failed = status if isinstance(status, int) and status else 1
        raise RestoreFailed(self._found.name, *complaint(place, "restore.log", failed))

    async def _ask(self, order: Message, lock: int, serving: Serving) -> Message:
        ending = asyncio.ensure_future(self._converse(order, lock))
        failing = asyncio.ensure_future(serving.failed.wait())
        try:
            await asyncio.wait({ending, failing}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                serving.hang_up()
                await asyncio.wait({ending}, timeout=ROLLBACK_TIMEOUT)
            if not ending.done():
                raise RestoreFailed(self._found.name, "runc does not end")
            return ending.result()
        finally:
            failing.cancel()
            ending.cancel()

    async def _tell(self, word: str, content: Message, lock: int | None = None) -> None:
        try:
            await self._conversation.send(word, content, lock)
        except HungUp as error:
            raise ClientGone from error

    async def _converse(self, order: Message, lock: int) -> Message:
        await self._tell("run", order, lock)
        try:
            word, content = await self._conversation.receive()
        except HungUp as error:
            raise ClientGone from error
        if word != "ended":
            raise ClientGone
        return content
