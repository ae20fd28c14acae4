"""A store in an object store (S3, Google Cloud Storage, Azure Blob Storage), through obstore.

What is written is durable and visible when the server has answered the last request, and not
before. Objects of less than one part, a checkpoint's manifest among them, are created with
``If-None-Match: *``, so that of two writers one loses. A few servers (OpenStack Swift's s3api: 501)
know no such condition; there, and for multipart uploads, a look before the last request has to do.
"""

from __future__ import annotations

from urllib.parse import SplitResult

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError

from agent.errors import AlreadyExists
from agent.store.base import Data, ObjectInfo
from agent.store.object_client import open_client
from agent.store.object_errors import (
    OBSTORE_ERRORS,
    is_code,
    is_missing,
    is_past_end,
    store_failed,
)
from agent.store.object_writer import PART_BYTES, PARTS_AT_ONCE, UploadWriter, abandon
from agent.store.paths import components, directory_components

# Parts of 16 MiB travel over slow links as well: one that moves less than 0.27 MB/s is taken for
# dead. Small requests are answered soon or not at all. A conditional put is not tried again without
# thought: its answer may be what was lost, and a server's 501 ("no such condition") is for ever.
_LARGE = {"request_seconds": 60, "retries": 8}
_SMALL = {"request_seconds": 15, "retries": 3}
_ONCE = {"request_seconds": 15, "retries": 0}

_PROBE = "write-check"


class ObjectStore:
    """Objects under a bucket's prefix. Raises InvalidArgument for a URL that cannot be used."""

    def __init__(self, url: SplitResult, parameters: dict[str, str]) -> None:
        self._url = url._replace(path=url.path.rstrip("/"))
        self._large = open_client(url, parameters, **_LARGE)
        self._small = open_client(url, parameters, **_SMALL)
        self._once = open_client(url, parameters, **_ONCE)
        self._conditions = True  # until the server says it knows none

    @property
    def url(self) -> str:
        return self._url.geturl()

    @property
    def writer_memory(self) -> int:
        return (PARTS_AT_ONCE + 1) * PART_BYTES

    def check_writable(self) -> None:
        """Starts an upload and abandons it, which takes the rights that a checkpoint takes."""
        upload = obstore.open_writer(self._small, _PROBE, buffer_size=0)
        try:
            upload.write(b"")
        except OBSTORE_ERRORS as error:
            raise store_failed("write", self.url, error) from None
        finally:
            abandon(upload)

    def create(self, path: str) -> UploadWriter:
        components(path)
        self._check_absent(path)
        return UploadWriter(
            self._large,
            path,
            self._of(path),
            publish=lambda data: self.put(path, data),
            check=lambda: self._check_absent(path),
        )

    def put(self, path: str, data: Data) -> None:
        components(path)
        try:
            self._put_new(path, bytes(data))
        except AlreadyExistsError:
            raise AlreadyExists("object", self._of(path)) from None
        except OBSTORE_ERRORS as error:
            raise store_failed("write", self._of(path), error) from None

    def size(self, path: str) -> int:
        components(path)
        try:
            return obstore.head(self._small, path)["size"]
        except OBSTORE_ERRORS as error:
            raise self._read_failed(path, error) from None

    def read(self, path: str, offset: int, length: int) -> Data:
        components(path)
        if length == 0:  # no range says that
            data = memoryview(b"")
            short = offset > self.size(path)
        else:
            try:
                found = obstore.get_range(self._large, path, start=offset, length=length)
            except OBSTORE_ERRORS as error:
                raise self._read_failed(path, error) from None
            data = memoryview(found)
            short = len(data) < length
        if short:
            raise EOFError(f"{self._of(path)}: no {length} bytes at {offset}")
        return data

    def directories(self) -> list[str]:
        try:
            found = obstore.list_with_delimiter(self._small)["common_prefixes"]
        except OBSTORE_ERRORS as error:
            raise store_failed("list", self.url, error) from None
        return sorted(name.strip("/") for name in found)

    def list(self, prefix: str) -> list[ObjectInfo]:
        below = "/".join(directory_components(prefix))
        try:
            pages = obstore.list(self._small, below or None, chunk_size=1000)
            found = [ObjectInfo(each["path"], each["size"]) for page in pages for each in page]
        except OBSTORE_ERRORS as error:
            raise store_failed("list", self.url, error) from None
        return sorted(found, key=lambda each: each.path)

    def delete(self, path: str) -> None:
        components(path)
        try:
            obstore.delete(self._small, path)
        except OBSTORE_ERRORS as error:
            if not is_missing(error):
                raise store_failed("delete", self._of(path), error) from None

    def discard(self, directory: str) -> None:
        components(directory)
        for found in self.list(directory):
            self.delete(found.path)

    def _put_new(self, path: str, data: bytes) -> None:
        if self._conditions:
            try:
                obstore.put(self._once, path, data, mode="create")
            except GenericError as error:
                if not is_code(error, "NotImplemented"):
                    self._put_patiently(path, data)
                    return
                self._conditions = False
            else:
                return
        self._check_absent(path)
        obstore.put(self._large, path, data, mode="overwrite", use_multipart=False)

    def _put_patiently(self, path: str, data: bytes) -> None:
        """After a failure that may pass. The first attempt may have arrived all the same: what is
        there then is what was to be written."""
        try:
            obstore.put(self._large, path, data, mode="create")
        except AlreadyExistsError:
            if bytes(obstore.get(self._large, path).bytes()) != data:
                raise

    def _check_absent(self, path: str) -> None:
        try:
            self.size(path)
        except FileNotFoundError:
            return
        raise AlreadyExists("object", self._of(path))

    def _read_failed(self, path: str, error: Exception) -> Exception:
        if is_missing(error):
            return FileNotFoundError(self._of(path))
        if is_past_end(error):
            return EOFError(f"{self._of(path)}: it ends before that")
        return store_failed("read", self._of(path), error)

    def _of(self, path: str) -> str:
        """The address of one object, as a user would write it."""
        return self._url._replace(path=f"{self._url.path}/{path}").geturl()
