"""The store protocol. The contract is in the comments; tests/contract/ checks it on every store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

# Anything with contiguous bytes, as callers hand it in. (collections.abc.Buffer needs Python 3.12.)
Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One visible object: its path relative to the store and its length in bytes."""

    path: str
    size: int


class ObjectWriter(Protocol):
    """Writes one new object from front to back. Used by one thread at a time.

    The object becomes visible at :meth:`commit` or never. After an exception from any method the
    only legal call is :meth:`abort`.
    """

    def write(self, data: Data) -> None:
        """Append ``data``. The caller may reuse its memory as soon as the call returns.

        Blocks when the store is slower than the caller, so memory in use stays bounded.
        Raises StoreFailed.
        """

    def commit(self) -> None:
        """Make everything written durable, then visible.

        Raises AlreadyExists or StoreFailed; then nothing is visible.
        """

    def abort(self) -> None:
        """Drop what was written. Never raises, may be called twice, does nothing after commit."""


class Store(Protocol):
    """See the package's docstring for the promises that hold for every call."""

    @property
    def url(self) -> str:
        """The store's address as a user would write it, without credentials."""

    @property
    def writer_memory(self) -> int:
        """Bytes that each object being written may hold in memory, beside what its caller holds."""

    def check_writable(self) -> None:
        """Fail early with StoreFailed when the store cannot be written to at all.

        Called before a container is touched. May create the store's own top directory; leaves
        nothing else behind.
        """

    def create(self, path: str) -> ObjectWriter:
        """Start a new object. Raises AlreadyExists or StoreFailed, here or at commit."""

    def put(self, path: str, data: Data) -> None:
        """Write a small object whole: atomic, durable, never over an existing one.

        Raises AlreadyExists or StoreFailed.
        """

    def size(self, path: str) -> int:
        """Length of an object in bytes. Raises FileNotFoundError when there is none."""

    def read(self, path: str, offset: int, length: int) -> Data:
        """Exactly ``length`` bytes from ``offset``.

        Raises FileNotFoundError when there is no such object, EOFError when it is shorter.
        """

    def directories(self) -> list[str]:
        """Names of the first path components that hold at least one object, sorted."""

    def list(self, prefix: str) -> list[ObjectInfo]:
        """All objects below the directory ``prefix`` ("" for all), in order of path."""

    def delete(self, path: str) -> None:
        """Remove an object and, where a store has directories, those left empty by it.

        A missing object is no error: deleting twice is deleting once.
        """

    def discard(self, directory: str) -> None:
        """Remove everything below a directory, unfinished objects too. Nothing there is no error.

        For what a failed or killed checkpoint left behind; the caller knows that nobody writes
        there. Parts of an upload that a killed process had begun are out of reach in an object
        store: a bucket needs a rule that ends incomplete multipart uploads after some days.
        """
