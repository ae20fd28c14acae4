"""Stores that are slower than any disk, or stop at a chosen step until they are told to go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self

from agent.store.base import Data, ObjectInfo, ObjectWriter, Store

# A first object is begun, bytes are written to one, one becomes visible, the manifest is written,
# bytes of a stream are read.
Step = Literal["create", "write", "commit", "manifest", "read"]

# Seconds. Longer than any test may take: a gate that nobody opens fails the test, not the machine.
_PATIENCE = 20.0

# Bytes: a chunk's payload, and never a header.
_LARGE = 1 << 20


@dataclass(eq=False)
class Gate:
    """Stops whoever comes until it is opened, and lets a test see that somebody waits.

    A context manager: it is open at the end of the block, whatever fails in it.
    """

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        with self._lock:
            self.waiting += 1
        self.reached.set()
        self.opened.wait(_PATIENCE)
        with self._lock:
            self.waiting -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def open(self) -> None:
        """Let everybody through, now and from now on."""
        self.opened.set()


class WrappedStore:
    """Another store, with ``pace(length)`` called before each write and ``pass_(step)`` before
    each step.
    """

    def __init__(
        self,
        inner: Store,
        *,
        pace: Callable[[int], None] = lambda _length: None,
        pass_: Callable[[Step], None] = lambda _step: None,
    ) -> None:
        self._inner, self._pace, self._pass = inner, pace, pass_

    @property
    def writer_memory(self) -> int:
        """So much that the agent keeps no more than its least number of buffers."""
        return 1 << 30

    @property
    def url(self) -> str:
        return self._inner.url

    def check_writable(self) -> None:
        self._inner.check_writable()

    def create(self, path: str) -> ObjectWriter:
        self._pass("create")
        return _WrappedWriter(self._inner.create(path), self._pace, self._pass)

    def put(self, path: str, data: Data) -> None:
        self._pass("manifest")
        self._inner.put(path, data)

    def size(self, path: str) -> int:
        return self._inner.size(path)

    def read(self, path: str, offset: int, length: int) -> Data:
        if "/stream-" in path:
            self._pass("read")
        return self._inner.read(path, offset, length)

    def directories(self) -> list[str]:
        return self._inner.directories()

    def list(self, prefix: str) -> list[ObjectInfo]:
        return self._inner.list(prefix)

    def delete(self, path: str) -> None:
        self._inner.delete(path)

    def discard(self, directory: str) -> None:
        self._inner.discard(directory)


@dataclass(eq=False)
class _WrappedWriter:
    inner: ObjectWriter
    pace: Callable[[int], None]
    pass_: Callable[[Step], None]

    def write(self, data: Data) -> None:
        self.pass_("write")
        self.pace(len(data))
        self.inner.write(data)

    def commit(self) -> None:
        self.pass_("commit")
        self.inner.commit()

    def abort(self) -> None:
        self.inner.abort()


def gated(inner: Store, step: Step, gate: Callable[[], None]) -> Store:
    """``inner``, with ``gate`` to be passed at every ``step``."""

    def pass_(reached: Step) -> None:
        if reached == step:
            gate()

    return WrappedStore(inner, pass_=pass_)


def throttled(inner: Store, *, bytes_per_second: float) -> Store:
    """``inner``, with each stream written to at ``bytes_per_second`` at most."""
    return WrappedStore(inner, pace=lambda length: time.sleep(length / bytes_per_second))


def hesitant(inner: Store, *, chunks: int, seconds: float) -> Store:
    """``inner``, where each of the first ``chunks`` large writes takes ``seconds`` longer."""
    left = iter(range(chunks))

    def pace(length: int) -> None:
        if length >= _LARGE and next(left, None) is not None:
            time.sleep(seconds)

    return WrappedStore(inner, pace=pace)
