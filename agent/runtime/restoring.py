"""One container on its way back: what it needs is fetched, and images are served to its CRIU."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from agent.config import Tools
from agent.errors import RestoreFailed, StoreFailed
from agent.host import aside, criu, network, process, runc
from agent.host.cuda import Cuda
from agent.host.injecting import NOTHING
from agent.host.run import describe_status
from agent.host.shield import to_the_end
from agent.host.wrapper.swap import COLD_SUFFIX, FAILED_SUFFIX
from agent.manifest import ROOTFS_DIFF, Image
from agent.operation import journal
from agent.operation.attempt import ROLLBACK_TIMEOUT, complaint
from agent.report import Phases
from agent.restore.driver_mounts import driver_mounts, make_points, renew_devices
from agent.restore.gpus import GpuPlan
from agent.restore.serving import Serving
from agent.restore.trees import unpack
from agent.runtime.asked import Asked
from agent.runtime.conversation import Conversation, Creation, HungUp
from agent.runtime.member import Fitted, find_member, fit
from agent.runtime.source import Source
from agent.runtime.volumes import key_of, stored_for
from agent.targets import Volume

# Beside an overlay's upper directory, until `checkpoint-runc` lets them change places.
_LAYER_SUFFIX = ".checkpoint"


Message = dict[str, Any]


class ClientGone(Exception):
    """What stood in for runc has ended, or was killed, in the middle of it."""


class Restoring:
    """The restore of one member into a container that an engine creates.

    Attributes:
        returned: keys of the volumes that this one has put back.
    """

    def __init__(
        self,
        source: Source,
        creation: Creation,
        asked: Asked,
        conversation: Conversation,
        *,
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
        self._state_dir = state_dir
        self._place: journal.Operation | None = None
        self._mounts = NOTHING
        self._volumes: list[Volume] = []
        self._layer: Path | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def returned(self) -> set[str]:
        """Keys of the volumes that this one has put back."""
        return {key_of(volume) for volume in self._volumes}

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
        gpus = await GpuPlan.make(self._cuda, self._source.manifest, [self._found.name])
        fitted = await asyncio.to_thread(fit, self._source, self._found, self._asked, first=first)
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
        flags = runc.restore_arguments(fitted.member.options)
        bundle, name = self._creation.bundle, self._found.name
        if self._layer is None:
            # A layer has them already, from when they were made in it.
            await asyncio.to_thread(make_points, self._mounts, bundle, name)
        try:
            pid = await serving.run(lambda: self._attempt(serving, place, flags))
            await asyncio.to_thread(renew_devices, pid, bundle, name)
            if name in gpus.members:
                with self.phases.measure("cuda_restore"):
                    await gpus.bring_back(name, pid)
            return pid
        finally:
            self.fallback_reason = serving.fallback_reason

    async def keep(self) -> None:
        """It runs: what was kept to go back to can go."""
        await asyncio.to_thread(self._keep)

    async def undo(self) -> None:
        """Make the pod's volumes what they were."""
        await asyncio.to_thread(self._undo)

    async def remove(self) -> None:
        """Remove what a `checkpoint-runc` that was killed has left of the container."""
        target = self._creation.target
        if runc.exists(target):
            await runc.delete(self._tools, target)
        if self._place is not None and (root := self._place.root_alive()) is not None:
            process.kill_tree(root)

    async def open_network(self) -> None:
        """Let packets into the pod's network, which a CRIU that has failed keeps out of it."""
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
        criu.install_launcher(place.launcher, self._tools, extra)
        return place

    async def _fetch_files(self, place: journal.Operation, done: set[str]) -> None:
        """Volumes go where they belong; the layer stays beside its place until it is needed."""
        source, log = self._source, place.work / "tar.log"
        wanted = stored_for(self._asked.volumes, source, done)
        self._volumes = [volume for volume, _ in wanted]
        # The other end can put back what was in them, should this one be killed.
        paths = [str(volume.source) for volume in self._volumes]
        await self._tell("volumes", {"paths": paths})
        for volume, stored in wanted:
            try:
                await asyncio.to_thread(aside.put, volume.source)
            except OSError as error:
                raise StoreFailed("write", str(volume.source), error.strerror or "") from error
            await unpack(
                source.store,
                source.manifest,
                stored.image,
                volume.source,
                log=log,
                lock=place.lock,
            )
        layer = _layer_of(self._source, self._found.name)
        if layer is None:
            return
        upper = self._creation.upper
        if upper is None:
            reason = "the checkpoint has a writable layer, and its root filesystem is no overlay"
            raise RestoreFailed(self._found.name, reason)
        self._layer = upper.with_name(upper.name + _LAYER_SUFFIX)
        self._cleanup.callback(_remove_others, upper)
        await asyncio.to_thread(_make_vacant, self._layer)
        await unpack(source.store, source.manifest, layer, self._layer, log=log, lock=place.lock)

    async def _attempt(self, serving: Serving, place: journal.Operation, flags: list[str]) -> int:
        """Have the other end run runc once."""
        order: Message = {
            "images": str(place.images),
            "work": str(place.work),
            "launcher": str(place.launcher),
            "flags": flags,
            "layer": str(self._layer) if self._layer else None,
        }
        content = await self._ask(order, place.lock, serving)
        status, pid = content.get("status"), content.get("pid")
        if status == 0 and isinstance(pid, int) and pid > 0:
            return pid
        status = status if isinstance(status, int) else 1
        reason, log = complaint(place, "restore.log", status or 1)
        raise RestoreFailed(self._found.name, reason or describe_status(status), log)

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

    def _keep(self) -> None:
        for volume in self._volumes:
            with contextlib.suppress(OSError):
                aside.forget(volume.source)

    def _undo(self) -> None:
        for volume in self._volumes:
            with contextlib.suppress(OSError):
                aside.put_back(volume.source)


def _layer_of(source: Source, name: str) -> Image | None:
    member = next(each for each in source.manifest.members if each.name == name)
    return member.image(ROOTFS_DIFF)


def _remove_others(upper: Path) -> None:
    """All layers beside the one that has come to be the container's."""
    for suffix in (_LAYER_SUFFIX, COLD_SUFFIX, FAILED_SUFFIX):
        shutil.rmtree(upper.with_name(upper.name + suffix), ignore_errors=True)


def _make_vacant(directory: Path) -> None:
    """A new directory; one that a killed agent has left is removed first."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755)
