"""A store in this process's memory: for dry runs, and for tests that need no more than that."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from agent.errors import AlreadyExists, StoreFailed
from agent.store.base import Data, ObjectInfo
from agent.store.paths import components, directory_components


class MemoryStore:
    """Objects as bytes in a dictionary, gone with the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def writer_memory(self) -> int:
        return 0

    def check_writable(self) -> None:
        """Memory can always be written to."""

    def create(self, path: str) -> _MemoryWriter:
        components(path)
        if path in self._objects:
            raise AlreadyExists("object", f"{self.url}/{path}")
        return _MemoryWriter(self, path)

    def put(self, path: str, data: Data) -> None:
        components(path)
        with self._lock:
            if path in self._objects:
                raise AlreadyExists("object", f"{self.url}/{path}")
            self._objects[path] = bytes(data)

    def size(self, path: str) -> int:
        return len(self._object(path))

    def read(self, path: str, offset: int, length: int) -> Data:
        data = self._object(path)
        if offset + length > len(data):
            raise EOFError(f"{self.url}/{path}: no {length} bytes at {offset}, only {len(data)}")
        return memoryview(data)[offset : offset + length]

    def directories(self) -> list[str]:
        with self._lock:
            return sorted({path.partition("/")[0] for path in self._objects if "/" in path})

    def list(self, prefix: str) -> list[ObjectInfo]:
        below = "".join(f"{part}/" for part in directory_components(prefix))
        with self._lock:
            sizes = {path: len(data) for path, data in self._objects.items()}
        return [ObjectInfo(path, sizes[path]) for path in sorted(sizes) if path.startswith(below)]

    def delete(self, path: str) -> None:
        components(path)
        with self._lock:
            self._objects.pop(path, None)

    def discard(self, directory: str) -> None:
        below = "".join(f"{part}/" for part in components(directory))
        with self._lock:
            for path in [path for path in self._objects if path.startswith(below)]:
                del self._objects[path]

    def _object(self, path: str) -> bytes:
        components(path)
        try:
            return self._objects[path]
        except KeyError:
            raise FileNotFoundError(f"{self.url}/{path}") from None


@dataclass(eq=False, slots=True)
class _MemoryWriter:
    _store: MemoryStore
    _path: str
    _data: bytearray = field(default_factory=bytearray)
    _open: bool = True

    def write(self, data: Data) -> None:
        if not self._open:
            raise StoreFailed("write", f"{self._store.url}/{self._path}", "the object is closed")
        self._data += data

    def commit(self) -> None:
        if not self._open:
            raise StoreFailed("write", f"{self._store.url}/{self._path}", "the object is closed")
        self._store.put(self._path, self._data)
        self._open = False

    def abort(self) -> None:
        self._open = False
        self._data.clear()
