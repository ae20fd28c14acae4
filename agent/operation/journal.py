"""Operations under way, as directories on disk that outlive the process that works on them.

    <state>/operations/<id>/   record.json   what is being done to whom, and what to undo
                               images/       sockets; runc's descriptors.json; CRIU's images in the
                               fallback work/         CRIU's and runc's logs launcher/     the criu
                               that runc finds first
    <state>/locks/             one lock file per target

Locks are the kernel's (flock): they are gone when every process that holds them is. The operation's
own lock is also held by runc, so as long as an orphaned runc still rolls back, nobody cleans up
under it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from agent.errors import StoreFailed, TargetBusy
from agent.host import process
from agent.host.mounts import detach_below

_RECORD = "record.json"
_ROOT = "root"


@dataclass(frozen=True, slots=True)
class Record:
    """Enough to undo an operation without the process that began it."""

    kind: Literal["checkpoint", "restore"]
    operation: str
    checkpoint_id: str
    store: str
    target: str
    container: str | None = None
    runc_root: str | None = None
    freezer: str | None = None
    freezer_version: int = 0


def new_id() -> str:
    """Sorts by time, and 40 random bits keep nodes apart that start in the same second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(5)}"


class Operation:
    """One operation's directory, locked."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self.lock = lock
        self.images = directory / "images"
        self.work = directory / "work"
        self.launcher = directory / "launcher"

    def note_root(self, pid: int) -> None:
        """Remember the first task that a restore has made: it may have to be found and ended."""
        if found := process.stat(pid):
            (self.directory / _ROOT).write_text(f"{pid} {found.started}")

    def root_alive(self) -> int | None:
        """The pid of the task noted, as long as it lives."""
        try:
            pid, started = map(int, (self.directory / _ROOT).read_text().split())
        except (OSError, ValueError):
            return None
        return pid if process.is_alive(pid, started) else None

    def remove(self) -> None:
        """The operation is over and undone or done: forget it."""
        if detach_below(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of the lock; the directory stays for a later recovery."""
        os.close(self.lock)


def begin(state_dir: Path, record: Record) -> Operation:
    """Write down an operation before it touches anything; durable when this returns.

    Raises:
        StoreFailed: the state directory cannot be written.
    """
    directory = state_dir / "operations" / record.operation
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _registry(directory.parent):
            directory.mkdir(mode=0o700)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise StoreFailed("write", str(directory), error.strerror or str(error)) from error
    operation = Operation(directory, lock)
    try:
        for path in (operation.images, operation.work):
            path.mkdir(mode=0o700)
        _write_durably(directory / _RECORD, json.dumps(asdict(record)).encode())
        os.fsync(lock)
    except OSError as error:
        operation.remove()
        raise StoreFailed("write", str(directory), error.strerror or str(error)) from error
    return operation


@contextmanager
def _registry(operations: Path) -> Iterator[None]:
    """Held while a directory appears and is locked, and while abandoned ones are looked for."""
    descriptor = os.open(operations, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_durably(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def exclusive(state_dir: Path, target: str) -> Iterator[None]:
    """Hold a target's lock: at most one checkpoint or restore of it at a time.

    Raises:
        TargetBusy: somebody else holds it.
    """
    locks = state_dir / "locks"
    try:
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = locks / hashlib.sha256(target.encode()).hexdigest()[:32]
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreFailed("write", str(locks), error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode()
            raise TargetBusy(target, int(owner or 0)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def abandoned(state_dir: Path) -> list[tuple[Record | None, Operation]]:
    """Operations that nobody works on any more, locked for the caller.

    The record is None when it was never completed: then nothing had been touched yet. The caller
    removes or releases each of them.
    """
    operations = state_dir / "operations"
    if not operations.is_dir():
        return []
    found: list[tuple[Record | None, Operation]] = []
    with _registry(operations):
        for directory in sorted(operations.iterdir()):
            try:
                lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # its owner has just removed it; or somebody's stray file
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            found.append((_read(directory / _RECORD), Operation(directory, lock)))
    return found


def _read(path: Path) -> Record | None:
    """A record, also of another version of the agent, whose additions mean nothing to this one."""
    known = {field.name for field in fields(Record)}
    try:
        found = json.loads(path.read_bytes())
        return Record(**{name: value for name, value in found.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
