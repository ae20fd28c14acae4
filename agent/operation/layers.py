"""A container's writable layer while it is filled: below its overlay, which is down meanwhile.

What has to be undone when the agent dies in between lies in the workplace for as long as the
overlay is down. Once it is up again with the whole layer in it, that is no remainder any more but a
root filesystem as it was at the checkpoint, and nobody can tell whether it has been used since.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.errors import RestoreFailed
from agent.host.boot import boot_id
from agent.host.layers import storage_of
from agent.host.mountinfo import Mount, read
from agent.host.overlay import root_of
from agent.host.remount import Layer, RemountFailed, find, put_up, take_down
from agent.host.run import run
from agent.host.shield import to_the_end
from agent.operation import journal
from agent.operation.workplace import Workplace

_NOTE = "layer.json"

# The overlay's own, which it wants to find again.
_OVERLAYS = "trusted.overlay."


def find_fresh(bundle: Path) -> Layer | None:
    """The overlay that is a bundle's root filesystem, when nothing has been written to it yet.

    None also for one that could not be taken down and put up again as it was. Blocks.
    """
    root = root_of(bundle)
    try:
        layer = find(root) if root is not None else None
        return layer if layer is not None and not os.listdir(layer.upper) else None
    except (RemountFailed, OSError):
        return None


@dataclass(frozen=True, slots=True)
class _Note:
    """A fresh layer as it was: how it was mounted, whose its directory was, in which boot."""

    mount: str
    boot: str
    mode: int
    owner: tuple[int, int]
    attributes: tuple[str, ...]

    @classmethod
    def of(cls, layer: Layer) -> _Note:
        status = os.stat(layer.upper)
        return cls(
            mount=os.fsdecode(layer.mount.line),
            boot=boot_id(),
            mode=status.st_mode & 0o7777,
            owner=(status.st_uid, status.st_gid),
            attributes=tuple(os.listxattr(layer.upper)),
        )

    def write(self, path: Path) -> None:
        """Durably: it is needed after a crash."""
        with path.open("w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())

    async def make_fresh(self, upper: bytes) -> None:
        """Empty a layer's directory. Raises AgentError, OSError."""
        # What is in there is a stranger's: a thousand folders in each other, for example, in which
        # shutil.rmtree would give up.
        found = ["find", os.fsdecode(upper), "-xdev", "-mindepth", "1", "-delete"]
        await run(found, env={"LC_ALL": "C"})
        for name in os.listxattr(upper):
            if name not in self.attributes and not name.startswith(_OVERLAYS):
                os.removexattr(upper, name)
        os.chown(upper, *self.owner)
        os.chmod(upper, self.mode)


class FreshLayer:
    """One layer. After a failure :meth:`undo` makes it fresh again, whatever it had come to."""

    def __init__(self, place: Workplace, layer: Layer, owner: str) -> None:
        """``owner`` is whose layer it is, for messages."""
        self._layer, self._owner = layer, owner
        self._was = _Note.of(layer)
        self._note = place.directory / _NOTE
        self._filled = False

    async def fill(self, unpack: Callable[[Path], Awaitable[None]]) -> bool:
        """Take the overlay down, let ``unpack`` fill the upper directory, and put it up again.

        Returns whether it did: not where the overlay is in use, or written to after all.

        Raises:
            RestoreFailed: it cannot be put up again.
            AgentError: what ``unpack`` does.
        """
        if not await to_the_end(asyncio.to_thread(self._open)):
            return False
        self._filled = True
        await unpack(Path(os.fsdecode(self._layer.upper)))
        await to_the_end(asyncio.to_thread(self._put_up))
        return True

    async def undo(self) -> None:
        """Make it empty, as it was.

        Raises:
            RestoreFailed: it is in use, or cannot be put up again.
        """
        if not self._filled and not self._note.exists():
            return
        if not self._note.exists():
            await asyncio.to_thread(self._take_down)
        await self._was.make_fresh(self._layer.upper)
        self._filled = False
        await asyncio.to_thread(self._put_up)

    def _open(self) -> bool:
        try:
            self._take_down()
        except RestoreFailed:
            return False
        if os.listdir(self._layer.upper):
            self._put_up()
            return False
        return True

    def _take_down(self) -> None:
        self._was.write(self._note)
        try:
            take_down(os.fsdecode(self._layer.point))
        except RemountFailed as error:
            self._note.unlink()
            raise RestoreFailed(self._owner, f"its layer is not empty any more: {error}") from error

    def _put_up(self) -> None:
        try:
            put_up(self._layer)
        except RemountFailed as error:
            raise RestoreFailed(self._owner, str(error)) from error
        self._note.unlink()


async def recover_layer(place: Workplace, owner: str) -> bool:
    """Make a layer fresh again whose overlay an agent that died has taken down.

    Where somebody has mounted it meanwhile, or it is gone, it is left as it is. After a reboot it
    is emptied, and not mounted: that is for whoever mounts everything then.

    Raises:
        RestoreFailed: the overlay cannot be put up again.
        OSError, AgentError: it cannot be emptied.
    """
    try:
        note = _Note(**json.loads((place.directory / _NOTE).read_bytes()))
        layer = Layer(Mount(os.fsencode(note.mount)))
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, RemountFailed):
        return False  # never completed, or the layer is gone
    if any(_is_same(layer.mount, each) for each in read()):
        return False
    await note.make_fresh(layer.upper)
    if note.boot == boot_id():
        await asyncio.to_thread(_put_back, layer, owner)
    return True


def _put_back(layer: Layer, owner: str) -> None:
    try:
        put_up(layer)
    except RemountFailed as error:
        if os.path.isdir(layer.point):
            raise RestoreFailed(owner, str(error)) from error
        # Whoever had made the bundle has removed it.


def has_left_layers(state_dir: Path) -> bool:
    """Whether there is anything for :func:`recover_layer`. Blocks."""
    places = ("", "members/*/")
    return any(
        any((state_dir / "operations" / record.operation).glob(f"{place}{_NOTE}"))
        for record in journal.orphaned(state_dir)
        for place in places
    )


def _is_same(ours: Mount, other: Mount) -> bool:
    """Whether a mount has our upper directory. Wherever it is mounted, that is in use."""
    if other.kind != b"overlay" or other.option(b"upperdir") != ours.option(b"upperdir"):
        return False
    return storage_of(ours) == storage_of(other)
