"""A member of a checkpoint as the pod it comes back into needs it: network, namespaces, name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.chunks import ChunkReader, read_image
from agent.errors import CheckpointCorrupt, InvalidArgument
from agent.manifest import Image, Member, Options
from agent.restore import sysv
from agent.restore.hostname import is_hostname_image, renamed
from agent.restore.options import for_new_network, merged
from agent.runtime.asked import Asked
from agent.runtime.conversation import Creation
from agent.runtime.source import Source

# By a namespace's name, the image without which the container had none of its own.
_IMAGE_OF: Final = {"ipc": "ipcns-var-", "uts": "utsns-"}


class Mismatch(InvalidArgument):
    """The checkpoint has no such container: it is started cold, whatever becomes of the others."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What CRIU is to make of a member.

    Attributes:
        member: with the images and options for this pod.
        joined: options of CRIU that make it a part of the pod.
        replaced: images that are others in this pod.
    """

    member: Member
    joined: tuple[str, ...]
    replaced: dict[str, bytes]


def find_member(source: Source, creation: Creation, asked: Asked) -> Member:
    """The member that a container is to become.

    Raises:
        Mismatch: there is none.
        InvalidArgument: it is not what the container is.
    """
    name = asked.identity.container
    found = next((each for each in source.manifest.members if each.name == name), None)
    if found is None:
        names = ", ".join(member.name for member in source.manifest.members)
        raise Mismatch("container", f"{name!r} is none of {names}")
    if creation.impossible:
        raise InvalidArgument("container", f"it is created with {creation.impossible}")
    if found.terminal != asked.terminal:
        had = "had" if found.terminal else "had no"
        raise InvalidArgument("container", f"its terminal: at the checkpoint it {had} one")
    return found


def fit(source: Source, found: Member, asked: Asked, *, first: bool) -> Fitted:
    """Blocks.

    Args:
        first: whether no other container of the pod came back before it.

    Raises:
        CheckpointCorrupt, StoreFailed
        InvalidArgument: no container of this pod can come back.
    """
    owner = _owner_of_memory(source)
    images = [image for image in found.images if image.kind != "rootfs"]
    had = [image.name for image in images]
    joined = [
        (kind, path)
        for kind, path in asked.namespaces
        if any(name.startswith(_IMAGE_OF[kind]) for name in had)
    ]
    kinds = {kind for kind, _ in joined}
    # Objects of a namespace are made by one: whoever makes one that is there already fails.
    makes_objects = first if owner is None else owner == found.name
    if "ipc" in kinds and not makes_objects:
        images = [image for image in images if not image.name.startswith(sysv.OBJECTS)]
    replaced = {}
    if "uts" in kinds and asked.hostname is not None:
        named = (image for image in images if is_hostname_image(image.name))
        replaced = {image.name: _renamed(source, image, asked.hostname) for image in named}
    options = merged(found.options, for_new_network(Options()))
    return Fitted(
        member=found.model_copy(update={"options": options, "images": images}),
        joined=tuple(word for kind, path in joined for word in ("--join-ns", f"{kind}:{path}")),
        replaced=replaced,
    )


def _owner_of_memory(source: Source) -> str | None:
    """The name of the member that uses the pod's shared memory of System V; None when none does.

    A CRIU that has not made it cannot map it, so of several only one could come back.
    """
    members = source.manifest.members
    having = [each for each in members if any(i.name.startswith(sysv.MEMORY) for i in each.images)]
    using = [member.name for member in having if _uses_memory(source, member)]
    if len(using) > 1:
        names = ", ".join(using)
        reason = f"{names} share memory of System V, which only one container can get back"
        raise InvalidArgument("container", reason)
    return using[0] if using else None


def _uses_memory(source: Source, member: Member) -> bool:
    reader = ChunkReader(source.store, source.manifest)
    spaces = [image for image in member.images if image.name.startswith(sysv.ADDRESS_SPACE)]
    try:
        return any(sysv.is_attached(read_image(reader, image)) for image in spaces)
    except ValueError as error:
        raise CheckpointCorrupt(source.path, f"{member.name}: {error}") from error


def _renamed(source: Source, image: Image, hostname: str) -> bytes:
    try:
        content = read_image(ChunkReader(source.store, source.manifest), image)
        return renamed(content, hostname)
    except ValueError as error:
        raise CheckpointCorrupt(source.path, f"{image.name}: {error}") from error
