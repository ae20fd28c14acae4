"""Takes an overlay down for a while, so that its upper layer can be filled, and puts it up again.

What becomes of changes below a mounted overlay is undefined, says the kernel: it remembers what was
not there. A container runtime mounts the root of a new container long before anybody can fill it.

    layer = take_down("/run/.../rootfs")
    try:
        fill(layer.upper)
    finally:
        put_up(layer)

This has to happen in the mount namespace that the runtime mounted it in. For programs there that
have to start quickly: standard library only, and little of that.
"""

from __future__ import annotations

import os

from agent.host import mounting
from agent.host.layers import BY_STEPS, is_relative, lower_directories, storage_of, unquoted
from agent.host.mountinfo import Mount, read, topmost

# mount(2) takes one page of options, with the byte that ends them. Overlays with more have been
# mounted in steps, layer for layer, and so are shown that way; each step takes 255 bytes.
_MOST = 4095
_MOST_IN_A_STEP = 255

_FLAGS = {
    b"ro": mounting.RDONLY,
    b"nosuid": mounting.NOSUID,
    b"nodev": mounting.NODEV,
    b"noexec": mounting.NOEXEC,
    b"noatime": mounting.NOATIME,
    b"nodiratime": mounting.NODIRATIME,
    b"relatime": mounting.RELATIME,
    b"nosymfollow": mounting.NOSYMFOLLOW,
}
_TIMES = mounting.NOATIME | mounting.RELATIME

# What is shown among the options and is none: whether the file system is read-only is a flag, and
# that there are SELinux labels is no choice.
_SHOWN = (b"rw", b"ro", b"seclabel")

# As Linux shows it now, and as it did before.
_VOLATILE = ((b"fsync", b"volatile"), (b"volatile", None))

# Type checkers know the name; typing itself would take 5 ms to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class RemountFailed(Exception):
    """An overlay cannot be taken down or put up again; the text says why, and what is mounted."""


class Layer:
    """An overlay that is not mounted at the moment, with all that is needed to mount it again.

    Attributes:
        mount: as it was mounted.
        point: where that was.
        upper, work: its directories, as they are reached from here.
        base: the directory that relative ones are found from; None when all are absolute.
    """

    def __init__(self, mount: Mount) -> None:
        """Raises RemountFailed for an overlay that could not be put up again as it was."""
        self.mount, self.point, self.source = mount, mount.point, mount.source
        self.flags = _flags(mount.options)
        self.read_only = (b"ro", None) in mount.super_options
        self.propagation = _propagation(mount.shared)
        self.options = [each for each in mount.super_options if each[0] not in _SHOWN]
        self.steps = any(name in BY_STEPS for name, _ in self.options)
        self._check_length()
        upper, work = mount.option(b"upperdir"), mount.option(b"workdir")
        if upper is None or work is None:
            raise RemountFailed(f"{_shown(self.point)} is read-only: it has no upper directory")
        named = [unquoted(upper), unquoted(work), *lower_directories(mount)]
        self.base = storage_of(mount) if any(map(is_relative, named)) else None
        self.upper, self.work, *_ = [self._found(path) for path in named]

    def _found(self, path: bytes) -> bytes:
        path = os.path.join(self.base or b"/", path)
        if not os.path.isdir(path):
            what = f"{_shown(path)}, a layer of {_shown(self.point)}"
            raise RemountFailed(f"{what}, cannot be found from here")
        return path

    def _check_length(self) -> None:
        if self.steps:
            long = any(len(value or b"") > _MOST_IN_A_STEP for _, value in self.options)
        else:
            long = len(self.data) > _MOST
        if long:
            raise RemountFailed(f"{_shown(self.point)} has longer options than the kernel takes")

    @property
    def data(self) -> bytes:
        """The options as mount(2) takes them."""
        return b",".join(
            name if value is None else b"%s=%s" % (name, value) for name, value in self.options
        )


def find(root: str | os.PathLike[str]) -> Layer:
    """The overlay that is mounted at ``root``, before it is taken down.

    Raises:
        RemountFailed: there is none, or it could not be put up again the same.
    """
    mounts = read()
    mount = topmost(os.path.realpath(os.fsencode(root)), mounts)
    if mount is None or mount.kind != b"overlay" or mount.root != b"/":
        raise RemountFailed(f"no overlay is mounted at {os.fspath(root)}")
    if any(tag.startswith(b"master:") for tag in mount.shared):
        raise RemountFailed(f"{_shown(mount.point)} is another mount namespace's, and stays there")
    others = [each for each in mounts if each.device == mount.device and each is not mount]
    if others:
        raise RemountFailed(f"{_shown(mount.point)} is also mounted at {_shown(others[0].point)}")
    return Layer(mount)


def take_down(root: str | os.PathLike[str]) -> Layer:
    """Unmount the overlay that is mounted at ``root``.

    Raises:
        RemountFailed: as :func:`find`, or it is in use. Nothing has changed.
    """
    layer = find(root)
    try:
        mounting.unmount(layer.point)
    except OSError as error:
        raise RemountFailed(f"cannot unmount {_shown(layer.point)}: {error.strerror}") from error
    return layer


def put_up(layer: Layer) -> None:
    """Mount a layer where it was, as it was.

    Raises:
        RemountFailed: and it is not mounted; this can be tried again.
    """
    try:
        if any(each in layer.options for each in _VOLATILE):
            _forget_doubt(layer.work)
        if layer.base is None:
            _mount(layer)
        else:
            _in_directory(layer.base, lambda: _mount(layer))
    except OSError as error:
        what = f"{_shown(layer.point)} is not mounted any more, and cannot be again"
        raise RemountFailed(f"{what}: {error.strerror}") from error


def _mount(layer: Layer) -> None:
    # All flags at once: what is set later does not reach other namespaces' copies of the mount.
    if layer.steps:
        options = [(b"ro", None), *layer.options] if layer.read_only else layer.options
        mounting.mount_by_steps(layer.source, layer.point, b"overlay", layer.flags, options)
    else:
        flags = layer.flags & ~mounting.RDONLY | (mounting.RDONLY if layer.read_only else 0)
        mounting.mount(layer.source, layer.point, b"overlay", flags, layer.data)
        if layer.flags & mounting.RDONLY and not layer.read_only:
            flags = mounting.REMOUNT | mounting.BIND | layer.flags
            mounting.mount(b"none", layer.point, b"", flags)
    # Otherwise it is what its parent is.
    mounting.mount(b"none", layer.point, b"", layer.propagation)


def _in_directory(directory: bytes, work: Callable[[], None]) -> None:
    """Do it with another working directory, which is not to be that of the whole process."""
    # Imported here: it takes 6 ms, and most overlays name all layers absolutely.
    from threading import Thread

    failed: list[OSError] = []

    def run() -> None:
        try:
            mounting.unshare(mounting.CLONE_FS)
            os.chdir(directory)
            work()
        except OSError as error:
            failed.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _forget_doubt(work: bytes) -> None:
    """Allow a volatile overlay to be mounted again.

    The kernel refuses that because such a layer is never synced, and may have been torn by a crash.
    There was none: this process saw it mounted.
    """
    mark = os.path.join(work, b"work", b"incompat", b"volatile")
    if os.path.isdir(mark):
        for name in os.listdir(mark):
            os.unlink(os.path.join(mark, name))
        os.rmdir(mark)


def _flags(options: list[bytes]) -> int:
    flags = sum(_FLAGS.get(each, 0) for each in options)
    # What is neither is shown by its absence.
    return flags if flags & _TIMES else flags | mounting.STRICTATIME


def _propagation(tags: list[bytes]) -> int:
    if any(tag.startswith(b"shared:") for tag in tags):
        return mounting.SHARED
    return mounting.UNBINDABLE if b"unbindable" in tags else mounting.PRIVATE


def _shown(path: bytes) -> str:
    return os.fsdecode(path)
