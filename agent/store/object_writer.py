"""Writing one object of an object store: a multipart upload that runs while it is written."""

from __future__ import annotations

from collections.abc import Callable

import obstore

from agent.errors import StoreFailed
from agent.store.base import Data
from agent.store.object_client import Client
from agent.store.object_errors import OBSTORE_ERRORS, store_failed

# One part and how many travel at a time. S3 takes 10,000 parts of one size each (obstore cannot
# let them grow), so 8 MiB ends an object at 78 GiB; memory is at most three parts, 24 MiB, for each
# object being written: 96 MiB for the four streams of a checkpoint, which with the pipeline's own
# memory stays below 300 MiB. More streams mean more connections, more memory, and a higher limit.
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 2
MAX_BYTES = 10_000 * PART_BYTES


class UploadWriter:
    """See agent.store.base.ObjectWriter. ``publish`` stores an object that stayed below one part
    whole; ``check`` fails when there is one of that name by now."""

    def __init__(
        self,
        client: Client,
        path: str,
        url: str,
        *,
        publish: Callable[[bytes], None],
        check: Callable[[], None],
    ) -> None:
        self._client = client
        self._path = path
        self._url = url
        self._publish = publish
        self._check = check
        self._head: list[bytes] = []  # all of it, until it fills a part
        self._length = 0
        self._upload: obstore.WritableFile | None = None
        self._open = True

    def write(self, data: Data) -> None:
        self._require_open()
        view = memoryview(data).cast("B")
        if self._length + len(view) > MAX_BYTES:
            limit = f"{MAX_BYTES >> 30} GiB (10,000 parts of {PART_BYTES >> 20} MiB)"
            raise self._failed(f"an object ends at {limit} here; use more streams")
        try:
            for start in range(0, len(view), PART_BYTES):
                # A copy, because obstore would go on reading the caller's memory.
                self._append(bytes(view[start : start + PART_BYTES]))
        except OBSTORE_ERRORS as error:
            raise store_failed("write", self._url, error) from None

    def commit(self) -> None:
        self._require_open()
        if self._upload is None:
            self._publish(b"".join(self._head))
        else:
            self._check()
            try:
                self._upload.close()  # aborts the upload itself when it fails
            except OBSTORE_ERRORS as error:
                self._upload = None
                raise store_failed("write", self._url, error) from None
        self._forget()

    def abort(self) -> None:
        if self._upload is not None:
            abandon(self._upload)
        self._forget()

    def _append(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._upload is not None:
            self._upload.write(piece)
            return
        self._head.append(piece)
        if self._length >= PART_BYTES:
            self._upload = obstore.open_writer(
                self._client, self._path, buffer_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
            head, self._head = self._head, []
            for each in head:
                self._upload.write(each)

    def _forget(self) -> None:
        self._upload = None
        self._head = []
        self._open = False

    def _require_open(self) -> None:
        if not self._open:
            raise self._failed("it was committed or aborted before")

    def _failed(self, reason: str) -> StoreFailed:
        return StoreFailed("write", self._url, reason)


def abandon(upload: obstore.WritableFile) -> None:
    """End an upload so that no part stays in the store: only leaving its context by an exception
    does that in obstore. An endpoint that is gone keeps what it has."""
    reason = RuntimeError("abandoned")
    try:
        upload.__exit__(RuntimeError, reason, None)
    except OBSTORE_ERRORS:
        return
