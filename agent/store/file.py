"""A store in a directory: an object is a file that appears whole, at its commit, by link(2)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from agent.errors import AlreadyExists, StoreFailed
from agent.store.base import Data, ObjectInfo
from agent.store.file_tree import MISSING, Tree, exists
from agent.store.file_writer import PendingFile
from agent.store.paths import components, directory_components

_PROBE_BYTES = 4096  # one block: enough to find a full disk


class FileStore:
    """Objects as files (0600) in directories (0700) below ``root``, made when first written to."""

    def __init__(self, root: Path) -> None:
        self._tree = Tree(root.absolute())

    @property
    def url(self) -> str:
        return "file://" + quote(str(self._tree.root))

    @property
    def writer_memory(self) -> int:
        return 0

    @property
    def is_there(self) -> bool:
        """Whether it has its top directory, which stays once something was checked or written.

        Where a file system has to be mounted for it, it may be away.
        """
        return self._tree.root.is_dir()

    def check_writable(self) -> None:
        with _translated("write", self.url):
            pending = self._tree.inside([], lambda fd: PendingFile(fd, "check"))
            try:
                pending.write(memoryview(bytes(_PROBE_BYTES)))
            finally:
                pending.close()

    def create(self, path: str) -> FileWriter:
        return FileWriter(self._tree, components(path), f"{self.url}/{path}")

    def put(self, path: str, data: Data) -> None:
        writer = self.create(path)
        try:
            writer.write(data)
            writer.commit()
        finally:
            writer.abort()

    def size(self, path: str) -> int:
        with self._object(path) as fd:
            return os.fstat(fd).st_size

    def read(self, path: str, offset: int, length: int) -> Data:
        with self._object(path) as fd, _translated("read", f"{self.url}/{path}"):
            size = os.fstat(fd).st_size
            if offset + length > size:
                raise EOFError(f"{self.url}/{path}: no {length} bytes at {offset}, only {size}")
            data = os.pread(fd, length, offset)
            while len(data) < length:  # one call reads at most 2 GiB - 4 KiB
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    raise EOFError(f"{self.url}/{path}: it shrank while it was read")
                data += more
            return data

    def directories(self) -> list[str]:
        paths = (found.path for found in self.list(""))
        return sorted({path.partition("/")[0] for path in paths if "/" in path})

    def list(self, prefix: str) -> list[ObjectInfo]:
        parts = directory_components(prefix)
        with _translated("list", self.url):
            found = [ObjectInfo(path, size) for path, size in self._tree.files(parts)]
        return sorted(found, key=lambda each: each.path)

    def delete(self, path: str) -> None:
        parts = components(path)
        with _translated("delete", f"{self.url}/{path}"):
            self._tree.unlink(parts)

    def discard(self, directory: str) -> None:
        parts = components(directory)
        with _translated("delete", f"{self.url}/{directory}"):
            self._tree.remove(parts)

    @contextlib.contextmanager
    def _object(self, path: str) -> Iterator[int]:
        parts = components(path)
        try:
            fd = self._tree.open(parts)
        except OSError as error:
            if error.errno in MISSING:
                raise FileNotFoundError(f"{self.url}/{path}") from None
            raise _failed("read", f"{self.url}/{path}", error) from None
        try:
            yield fd
        finally:
            os.close(fd)


class FileWriter:
    """One object being written, see ObjectWriter. ``url`` is its own, for errors."""

    def __init__(self, tree: Tree, parts: list[str], url: str) -> None:
        self._tree = tree
        self._parts = parts
        self._url = url
        with _translated("create", url):
            self._pending: PendingFile | None = tree.inside(parts[:-1], self._start)

    def write(self, data: Data) -> None:
        with _translated("write", self._url):
            self._opened().write(memoryview(data).cast("B"))

    def commit(self) -> None:
        with _translated("write", self._url):
            self._opened().sync()
            self._tree.inside(self._parts[:-1], self._link)
            try:
                self._tree.sync(self._parts[:-1])
            except OSError:
                self._tree.unlink(self._parts)
                raise
        self._close()

    def abort(self) -> None:
        if self._pending is not None:
            self._close()
            with contextlib.suppress(OSError):
                self._tree.prune(self._parts[:-1])

    def _start(self, parent: int) -> PendingFile:
        if exists(parent, self._parts[-1]):
            raise AlreadyExists("object", self._url)
        return PendingFile(parent, self._parts[-1])

    def _link(self, parent: int) -> None:
        try:
            self._opened().link(parent, self._parts[-1])
        except FileExistsError:
            raise AlreadyExists("object", self._url) from None

    def _opened(self) -> PendingFile:
        if self._pending is None:
            raise StoreFailed("write", self._url, "it was committed or aborted before")
        return self._pending

    def _close(self) -> None:
        pending, self._pending = self._opened(), None
        pending.close()


@contextlib.contextmanager
def _translated(operation: str, url: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(operation, url, error) from None


def _failed(operation: str, url: str, error: OSError) -> StoreFailed:
    return StoreFailed(operation, url, error.strerror or type(error).__name__)
