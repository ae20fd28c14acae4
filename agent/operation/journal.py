"""Operations under way, as directories on disk that outlive the process that works on them.

    <state>/operations/<id>/   record.json   what is being done to whom, and what to undo
                               images/       sockets; runc's descriptors.json; CRIU's images in the
                                             fallback
                               work/         CRIU's and runc's logs
                               launcher/     the criu that runc finds first
                               members/N/    the same three for the second member and all after it
    <state>/locks/             one lock file per target

Locks are the kernel's (flock): they are gone when every process that holds them is. The operation's
own lock is also held by runc, so as long as an orphaned runc still rolls back, nobody cleans up
under it. A second one, on the record, is the agent's alone: what it froze is thawed as soon as it
is gone, whatever an orphan may hang in.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from agent.errors import StoreFailed
from agent.host.mounts import detach_below
from agent.operation.locks import exclusive
from agent.operation.record import Affected, Record, read
from agent.operation.workplace import Workplace

__all__ = [
    "Affected",
    "Operation",
    "Record",
    "abandoned",
    "begin",
    "exclusive",
    "new_id",
    "orphaned",
    "owned",
    "records",
    "worked_on",
]

_RECORD = "record.json"


def new_id() -> str:
    """Sorts by time, and 40 random bits keep nodes apart that start in the same second."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(5)}"


class Operation(Workplace):
    """One operation's directory, locked; also the workplace of its first member."""

    def __init__(self, directory: Path, lock: int) -> None:
        super().__init__(directory, lock)
        self._owner: int | None = None

    def own(self) -> None:
        """Hold the record's lock, which no child inherits. Raises OSError."""
        self._owner = os.open(self.directory / _RECORD, os.O_RDONLY)
        fcntl.flock(self._owner, fcntl.LOCK_EX)

    def workplaces(self, members: int) -> list[Workplace]:
        """One for each member, made now.

        Raises:
            StoreFailed: the state directory cannot be written.
        """
        others = [self._other(number) for number in range(1, members)]
        try:
            for place in others:
                place.make()
        except OSError as error:
            raise StoreFailed("write", str(self.directory), error.strerror or str(error)) from error
        return [self, *others]

    def found_workplaces(self) -> list[Workplace]:
        """Those that a dead operation has left, in order."""
        numbers = sorted(int(path.name) for path in self.directory.glob("members/*"))
        return [self, *(self._other(number) for number in numbers)]

    def _other(self, number: int) -> Workplace:
        return Workplace(self.directory / "members" / str(number), self.lock, self._kept)

    def rewrite(self, record: Record) -> None:
        """Note that a part of it is undone; for who recovers it. Raises OSError."""
        written = self.directory / f"{_RECORD}.new"
        written.unlink(missing_ok=True)
        _write_durably(written, json.dumps(asdict(record)).encode())
        written.replace(self.directory / _RECORD)

    def remove(self) -> None:
        """The operation is over and undone or done: forget it."""
        if not self._kept.is_set() and detach_below(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of the locks; the directory stays for a later recovery."""
        os.close(self.lock)
        if self._owner is not None:
            os.close(self._owner)


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
        operation.make()
        _write_durably(directory / _RECORD, json.dumps(asdict(record)).encode())
        operation.own()
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


def abandoned(state_dir: Path) -> list[tuple[Record | None, Operation]]:
    """Operations that nobody works on any more, locked for the caller.

    The record is None when it was never completed: then nothing had been touched yet. The caller
    removes or releases each of them.
    """
    operations = state_dir / "operations"
    if not operations.is_dir():
        return []
    found: list[tuple[Record | None, Operation]] = []
    try:
        with _registry(operations):
            for directory in sorted(operations.iterdir()):
                if (operation := _take(directory)) is not None:
                    found.append((read(directory / _RECORD), operation))
    except BaseException:
        for _, operation in found:
            operation.release()
        raise
    return found


def _take(directory: Path) -> Operation | None:
    """The operation with its lock, if nobody has it. Raises OSError, such as EMFILE."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None  # its owner has just removed it; or somebody's stray file
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Operation(directory, lock)


def orphaned(state_dir: Path) -> list[Record]:
    """Records of operations whose agent is gone; programs that it started may still work on them.

    One that is about to begin and does not hold its record yet is there too: it has not touched
    anything.
    """
    records = (state_dir / "operations").glob(f"*/{_RECORD}")
    found = [read(path) for path in records if not _is_owned(path)]
    return [record for record in found if record is not None]


def records(state_dir: Path) -> list[Record]:
    """Of every operation that is under way or has died."""
    found = [read(path) for path in (state_dir / "operations").glob(f"*/{_RECORD}")]
    return [record for record in found if record is not None]


def owned(state_dir: Path) -> list[Record]:
    """Records of operations whose agent lives and is at it."""
    records = (state_dir / "operations").glob(f"*/{_RECORD}")
    found = [read(path) for path in records if _is_owned(path)]
    return [record for record in found if record is not None]


def worked_on(state_dir: Path) -> list[Record]:
    """Of those that are orphaned the ones that runc or CRIU has not done with: they roll back."""
    return [
        record
        for record in orphaned(state_dir)
        if _is_locked(state_dir / "operations" / record.operation)
    ]


def _is_locked(operation: Path) -> bool:
    try:
        descriptor = os.open(operation, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False  # just removed
    try:
        # Shared, as below. Who cleans up meanwhile takes it for busy, and comes back.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_owned(record: Path) -> bool:
    try:
        descriptor = os.open(record, os.O_RDONLY)
    except OSError:
        return True  # just removed, by its owner
    try:
        # Shared: two who look at the same time do not take each other for the owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
