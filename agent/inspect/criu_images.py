"""CRIU's own images, decoded: magic, then messages each behind its length.

pycriu brings the messages; its own loader turns every one into dictionaries, which takes seconds
for a large pagemap. Nothing here reads pages.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from agent.chunks import MAX_SMALL_IMAGE, ChunkCache, read_image
from agent.config import MIB
from agent.errors import CheckpointCorrupt, MissingTool
from agent.manifest import Member

# The common magic and the image's own.
_MAGIC = 8

# All descriptors of a process, or files of a container, about 100 bytes each: more than a million.
_MOST = 256 * MIB


class CriuImages:
    """The images of one member. Messages are pycriu's, known by the names in CRIU's images/*.proto.

    Every method raises CheckpointCorrupt, StoreFailed, and MissingTool when pycriu is not there.
    """

    def __init__(self, member: Member, cache: ChunkCache, path: str) -> None:
        """``path`` is the checkpoint's, for messages."""
        self.member = member
        self._cache = cache
        self._path = path
        self._messages = _pycriu()

    def first(self, name: str, message: str) -> Any | None:  # noqa: ANN401 - pycriu has no types
        """The first message of an image; None when there is no such image, or nothing in it."""
        image = self.member.image(name)
        if image is None:
            return None
        if image.size > MAX_SMALL_IMAGE:
            # A pagemap of a terabyte, say: all that is asked of it is at its beginning.
            data = bytes(self._cache.read(image.pieces[0].chunk))
        else:
            data = read_image(self._cache, image)
        return next(self._messages_in(data, name, message), None)

    def all(self, name: str, message: str) -> Iterator[Any]:
        """The messages of an image, all of one kind; none when there is no such image."""
        image = self.member.image(name)
        if image is None:
            return
        try:
            data = read_image(self._cache, image, _MOST)
        except ValueError as error:
            raise CheckpointCorrupt(path=self._path, reason=str(error)) from error
        yield from self._messages_in(data, name, message)

    def _messages_in(self, data: bytes, name: str, message: str) -> Iterator[Any]:
        at = _MAGIC
        while at < len(data):
            try:
                (length,) = struct.unpack_from("=I", data, at)
                body = data[at + 4 : at + 4 + length]
                if len(body) < length:
                    raise ValueError("it ends in the middle of a message")
                yield getattr(self._messages, message).FromString(body)
            except (struct.error, ValueError, DecodeError) as error:
                reason = f"{name} of {self.member.target} does not decode: {error}"
                raise CheckpointCorrupt(path=self._path, reason=reason) from error
            at += 4 + length


def _pycriu() -> Any:  # noqa: ANN401
    try:
        from pycriu.images import pb
    except ImportError as error:
        raise MissingTool(tool="pycriu", reason=str(error)) from error
    return pb
