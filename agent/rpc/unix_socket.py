"""The agent's unix socket: root's alone from its first moment, and never another agent's.

gRPC binds by path, removes what is there and leaves the mode to the umask. So it binds below a
directory that nobody else can enter, and the finished socket is then moved to its place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
from pathlib import Path

from agent.errors import AlreadyExists, InvalidArgument

# Seconds. A live server answers a local connect at once, whatever it is busy with.
PATIENCE = 2.0


class UnixSocket:
    """The place of a socket, held from the constructor to :meth:`remove`.

    Give ``address`` to the server, then call :meth:`publish`.
    """

    def __init__(self, path: Path) -> None:
        """Make sure of the place; its directory is made when it is missing.

        Raises:
            AlreadyExists: an agent, or another program, listens there.
            InvalidArgument: the place cannot be used; says why.
        """
        self._path = path
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _check_directory(path.parent)
            self._lock = _lock(path)
            try:
                _check_free(path)
                self._private = _private_directory(path)
                self._handle = os.open(self._private, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise InvalidArgument("rpc.socket", f"{path}: {error.strerror}") from error
        self._identity: tuple[int, int] | None = None

    @property
    def address(self) -> str:
        """Where gRPC is to bind; short, whatever the length of the directory's own path."""
        return f"unix:/proc/self/fd/{self._handle}/s"

    def publish(self) -> None:
        """Put the bound socket in its place, mode 0600; what a dead agent has left is replaced."""
        bound = self._private / "s"
        bound.chmod(0o600)
        status = bound.stat()
        self._identity = (status.st_dev, status.st_ino)
        bound.rename(self._path)

    def remove(self) -> None:
        """Give the place up. The server has been stopped; what is not ours there is left."""
        try:
            status = self._path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                self._path.unlink()
        except FileNotFoundError:
            pass
        shutil.rmtree(self._private, ignore_errors=True)
        os.close(self._handle)
        os.close(self._lock)


def _private_directory(path: Path) -> Path:
    """A new directory beside ``path``; one that a killed agent has left is removed first."""
    private = path.with_name(f".{path.name}.new")
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o700)
    return private


def _check_directory(directory: Path) -> None:
    status = directory.stat()
    others_may_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid not in (0, os.geteuid()) or (
        others_may_write and not status.st_mode & stat.S_ISVTX
    ):
        reason = f"others may write to {directory} and put a socket of theirs in its place"
        raise InvalidArgument("rpc.socket", reason)


def _lock(path: Path) -> int:
    """Held as long as the place is; the kernel gives it back when its holder dies."""
    lock = os.open(
        path.with_name(f".{path.name}.lock"),
        os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AlreadyExists("an agent that listens at this socket", str(path)) from None
    return lock


def _check_free(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidArgument("rpc.socket", f"{path} is there and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # its program has died
    raise AlreadyExists("a program that listens at this socket", str(path))
