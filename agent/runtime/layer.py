"""A container's writable layer from its checkpoint, beside the one that it was created with."""

from __future__ import annotations

from pathlib import Path

from agent.host import emptying
from agent.host.wrapper.swap import COLD_SUFFIX, FAILED_SUFFIX
from agent.manifest import ROOTFS_DIFF, Image
from agent.runtime.source import Source

# Beside an overlay's upper directory, until `checkpoint-runc` lets them change places.
_SUFFIX = ".checkpoint"


def layer_of(source: Source, name: str) -> Image | None:
    """That of the member of this name, None where only processes were taken."""
    member = next(each for each in source.manifest.members if each.name == name)
    return member.image(ROOTFS_DIFF)


def place_beside(upper: Path) -> Path:
    """Where it is unpacked, for a container with this upper directory."""
    return upper.with_name(upper.name + _SUFFIX)


def remove_others(upper: Path) -> None:
    """All layers beside the one that has come to be the container's. Blocks."""
    for suffix in (_SUFFIX, COLD_SUFFIX, FAILED_SUFFIX):
        emptying.remove(upper.with_name(upper.name + suffix))


def make_vacant(directory: Path) -> None:
    """A new directory; one that a killed agent has left is removed first. Blocks."""
    emptying.remove(directory)
    directory.mkdir(mode=0o755)
