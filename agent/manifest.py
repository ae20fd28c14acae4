"""The manifest: what a checkpoint consists of, and where each byte of it is. See proto/FORMAT.md.

Models and their bytes; no I/O. A manifest comes from a store that others may have written to, so
parsing validates types, names, ranges and references before anybody uses them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import CheckpointCorrupt, FormatTooNew
from agent.frame import MAX_CHUNK, MAX_STREAMS, Codec, digest

# The newest that is read. What is written is the oldest that can say what there is to say, so that
# older agents read all they can.
FORMAT_VERSION = 2

# Fields that format 1 does not have, and what they are where they are not written.
_SINCE_2: Final = {"reason": "manual", "gpus": None}

MANIFEST = "manifest.json"
MAX_MANIFEST = 256 << 20

CHECKPOINT_ID = r"^[a-z0-9][a-z0-9._-]{0,127}$"
IMAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$"
# As a container's id, which runc lets be up to 1,024 letters, or a volume's name in Kubernetes.
LABEL = r"^[A-Za-z0-9_.+-]{1,1024}$"


def _no_directory(label: str) -> str:
    if label in (".", ".."):
        raise ValueError("a name that means a directory")
    return label


Size = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ImageKind = Literal["criu", "runc", "bundle", "stats", "rootfs", "volume"]
Label = Annotated[str, Field(pattern=LABEL), AfterValidator(_no_directory)]

# A member's writable layer, and what a volume holds.
ROOTFS_DIFF = "rootfs-diff.tar"
VOLUME_TAR = "volume.tar"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chunk(NamedTuple):
    """Where a chunk is: stream and offset of its frame header, and what the frame says."""

    stream: Annotated[int, Field(ge=0, lt=MAX_STREAMS)]
    offset: Size
    stored: Annotated[int, Field(ge=0, le=MAX_CHUNK)]
    raw: Annotated[int, Field(gt=0, le=MAX_CHUNK)]
    codec: Codec
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Piece(NamedTuple):
    """A run of raw bytes of one chunk."""

    chunk: Size
    offset: Size
    length: Annotated[int, Field(gt=0, le=MAX_CHUNK)]


class Image(_Model):
    """One file of a member, as the pieces that make it up in order."""

    name: Annotated[str, Field(pattern=IMAGE_NAME)]
    kind: ImageKind
    size: Size
    pieces: list[Piece]


class Options(_Model):
    """What runc or CRIU were told at dump and have to be told again at restore."""

    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    link_remap: bool = False
    manage_cgroups_mode: Literal["soft", "full", "strict", "ignore"] = "soft"
    tcp_skip_in_flight: bool = False
    # Bytes; CRIU's own limit when None.
    ghost_limit: Annotated[int, Field(gt=0, lt=1 << 32)] | None = None
    # 4 is everything: what failed is to be read there.
    log_level: Annotated[int, Field(ge=0, le=4)] = 4


class Pod(_Model):
    """The pod that the members are containers of."""

    uid: str
    namespace: str
    name: str


class Member(_Model):
    """One container or process tree; ``name`` tells it from the others."""

    name: Label
    kind: Literal["runc", "process"]
    target: str
    pid: Annotated[int, Field(gt=0)]
    bundle: str | None = None
    runc_root: str | None = None
    terminal: bool = False
    options: Options = Options()
    images: list[Image]

    def image(self, name: str) -> Image | None:
        """The image of that name, if there is one."""
        return next((image for image in self.images if image.name == name), None)


class Volume(_Model):
    """A directory that the members share, as a tar."""

    name: Label
    medium: Literal["shm", "empty-dir"]
    image: Image


class Stream(_Model):
    """One stream object; ``path`` is relative to the checkpoint."""

    path: Annotated[str, Field(pattern=r"^stream-[0-9]{3}$")]
    bytes: Size
    frames: Size


class Host(_Model):
    """Where the checkpoint was taken."""

    name: str
    kernel: str
    architecture: str
    criu: str
    runc: str | None


class Gpu(_Model):
    """A GPU that members saw where the checkpoint was taken; ``used``: by one of them."""

    uuid: Annotated[str, Field(pattern=r"^GPU-[0-9a-f-]{36}$")]
    model: Annotated[str, Field(max_length=128)]
    memory_bytes: Size
    used: bool


class Gpus(_Model):
    """All GPUs that members saw, and the members that have something on them.

    What they had lies in those members' memory, and goes back onto GPUs after the restore.
    """

    driver: Annotated[str, Field(max_length=64)]
    devices: Annotated[list[Gpu], Field(max_length=256)]
    members: Annotated[list[Label], Field(min_length=1)]

    @property
    def used_models(self) -> list[str]:
        """Models of those that a member used, one for each."""
        return [gpu.model for gpu in self.devices if gpu.used]


class Manifest(_Model):
    """A whole checkpoint."""

    checkpoint_id: Annotated[str, Field(pattern=CHECKPOINT_ID)]
    name: str | None
    kind: Literal["simple", "rootfs", "rootfsonly"] = "simple"
    pod: Pod | None = None
    created_at: str
    agent_version: str
    host: Host
    codec: str
    streamed: bool
    fallback_reason: str | None
    frozen_seconds: Seconds
    phases: dict[str, Seconds]
    members: Annotated[list[Member], Field(min_length=1)]
    volumes: list[Volume] = []
    streams: Annotated[list[Stream], Field(min_length=1, max_length=MAX_STREAMS)]
    chunks: list[Chunk]
    # Since format 2.
    reason: Literal["manual", "heartbeat"] = "manual"
    gpus: Gpus | None = None

    @property
    def bytes_raw(self) -> int:
        """Bytes of all images, uncompressed."""
        return sum(image.size for image in self.images())

    def images(self) -> Iterator[Image]:
        """Those of all members, then those of the volumes."""
        for member in self.members:
            yield from member.images
        for volume in self.volumes:
            yield volume.image

    @property
    def bytes_stored(self) -> int:
        """Bytes of all streams as stored, headers included."""
        return sum(stream.bytes for stream in self.streams)

    @model_validator(mode="after")
    def _references_hold(self) -> Manifest:
        for chunk in self.chunks:
            if chunk.stream >= len(self.streams):
                raise ValueError(f"a chunk is in stream {chunk.stream}, which does not exist")
            if chunk.offset + chunk.stored > self.streams[chunk.stream].bytes:
                raise ValueError("a chunk lies outside its stream")
        _check_unique([member.name for member in self.members], "members")
        _check_unique([volume.name for volume in self.volumes], "volumes")
        for member in self.members:
            _check_unique([image.name for image in member.images], f"images of {member.name}")
        for image in self.images():
            self._check_pieces(image)
        known = {member.name for member in self.members}
        if self.gpus is not None and not known.issuperset(self.gpus.members):
            raise ValueError("a member that is not there uses a GPU")
        return self

    def _check_pieces(self, image: Image) -> None:
        for piece in image.pieces:
            if piece.chunk >= len(self.chunks):
                raise ValueError(f"{image.name} names chunk {piece.chunk}, which does not exist")
            if piece.offset + piece.length > self.chunks[piece.chunk].raw:
                raise ValueError(f"{image.name} has a piece outside its chunk")
        if sum(piece.length for piece in image.pieces) != image.size:
            raise ValueError(f"the pieces of {image.name} are not {image.size} bytes")


def _check_unique(names: list[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"two {what} have the same name")


def to_bytes(manifest: Manifest) -> bytes:
    """The manifest as stored: envelope line, body line."""
    usual = {name for name, value in _SINCE_2.items() if getattr(manifest, name) == value}
    version = 1 if len(usual) == len(_SINCE_2) else 2
    body = manifest.model_dump_json(exclude=usual).encode() + b"\n"
    envelope = {"format": version, "bytes": len(body), "xxh3_128": digest(body).hex()}
    return json.dumps(envelope).encode() + b"\n" + body


def from_bytes(data: bytes, path: str) -> Manifest:
    """Parse and validate what to_bytes wrote. ``path`` is for messages.

    Raises:
        FormatTooNew: a newer agent wrote it.
        CheckpointCorrupt: it is damaged or not a manifest.
    """
    first, newline, body = data.partition(b"\n")
    try:
        envelope = json.loads(first)
        version = int(envelope["format"])
        length, expected = int(envelope["bytes"]), str(envelope["xxh3_128"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # The last two: 1e999 for a number, and brackets nested without end.
        raise CheckpointCorrupt(path=path, reason="the manifest has no valid envelope") from error
    if version > FORMAT_VERSION:
        raise FormatTooNew(path=path, version=version, supported=FORMAT_VERSION)
    if version < 1:
        raise CheckpointCorrupt(path=path, reason=f"there is no format {version}")
    if not newline or len(body) != length or digest(body).hex() != expected:
        raise CheckpointCorrupt(path=path, reason="the manifest does not match its checksum")
    try:
        manifest = Manifest.model_validate_json(body)
    except ValidationError as error:
        first_error = error.errors()[0]
        where = ".".join(str(part) for part in first_error["loc"])
        reason = f"invalid manifest: {where}: {first_error['msg']}"
        raise CheckpointCorrupt(path=path, reason=reason) from error
    if version < 2 and (newer := manifest.model_fields_set & _SINCE_2.keys()):
        reason = f"format {version} has no field `{min(newer)}`"
        raise CheckpointCorrupt(path=path, reason=reason)
    return manifest
