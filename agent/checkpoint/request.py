"""What somebody wants checkpointed, how, and where to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from agent.compress import Compression, parse_compression
from agent.errors import InvalidArgument
from agent.frame import MAX_STREAMS
from agent.manifest import CHECKPOINT_ID, LABEL, Options, Pod
from agent.store import Store
from agent.targets import Kind, RuncTarget, Target, Volume

# As many as a small node has cores, twice: storage and compression overlap. More only help far
# stores.
DEFAULT_STREAMS = 4

# Seconds. Five minutes, as callers may freeze a pod: liveness probes and cluster members' leases
# have given up long before, and a container of 64 GiB is out in time at 230 MB/s.
DEFAULT_FROZEN_LIMIT = 300.0
MAX_FROZEN_LIMIT = 86_400.0


@dataclass(frozen=True, slots=True)
class MemberRequest:
    """One container or process tree; without a name it is called by its id or pid."""

    target: Target
    name: str | None = None

    @property
    def label(self) -> str:
        """What tells it from the other members."""
        if self.name is not None:
            return self.name
        target = self.target
        return target.container if isinstance(target, RuncTarget) else str(target.pid)


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """Members of one moment, in one checkpoint.

    ``checkpoint_id`` is made up unless given; ``pod`` and ``volumes`` are what the members belong
    to and share. What stands still for ``frozen_limit`` seconds is given up.
    """

    members: tuple[MemberRequest, ...]
    store: Store
    streams: int = DEFAULT_STREAMS
    compression: Compression = field(default_factory=lambda: parse_compression("zstd"))
    stop: bool = False
    name: str | None = None
    options: Options = field(default_factory=Options)
    kind: Kind = Kind.SIMPLE
    pod: Pod | None = None
    volumes: tuple[Volume, ...] = ()
    checkpoint_id: str | None = None
    reason: Literal["manual", "heartbeat"] = "manual"
    frozen_limit: float = DEFAULT_FROZEN_LIMIT

    @property
    def is_plain(self) -> bool:
        """Whether CRIU's own freeze is all that is needed: there is one member and nothing else."""
        return len(self.members) == 1 and self.kind is Kind.SIMPLE and not self.volumes

    @property
    def needs_runc(self) -> bool:
        """Files alone are taken of a container without it; it dumps and ends containers."""
        taken = self.kind is not Kind.ROOTFS_ONLY or self.stop
        return taken and any(isinstance(each.target, RuncTarget) for each in self.members)

    def __str__(self) -> str:
        if self.pod is not None:
            return f"pod {self.pod.namespace}/{self.pod.name}"
        return ", ".join(str(member.target) for member in self.members)

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidArgument: names the field.
        """
        if not 1 <= self.streams <= MAX_STREAMS:
            raise InvalidArgument("streams", f"{self.streams} is not from 1 to {MAX_STREAMS}")
        # What is not a number is refused too: it is neither above nor below anything.
        if not 0 < self.frozen_limit <= MAX_FROZEN_LIMIT:
            reason = f"{self.frozen_limit:g} is not above 0 and at most {MAX_FROZEN_LIMIT:g} s"
            raise InvalidArgument("frozen_limit", reason)
        if self.checkpoint_id is not None and not re.fullmatch(CHECKPOINT_ID, self.checkpoint_id):
            raise InvalidArgument("checkpoint_id", f"{self.checkpoint_id!r} is no checkpoint's id")
        if not self.members:
            raise InvalidArgument("members", "there is none")
        if self.name is not None:
            check_text("name", self.name)
        for member in self.members:
            if isinstance(member.target, RuncTarget):
                check_text("runc_root", str(member.target.root))
        # One that has no name is called by its id, which is looked at with the target.
        _check_names("members", [member.name for member in self.members if member.name is not None])
        _check_names("volumes", [volume.name for volume in self.volumes])
        _check_unique("members", [member.label for member in self.members])
        _check_unique("volumes", [volume.name for volume in self.volumes])


def check_text(argument: str, text: str) -> None:
    """Refuse what a manifest cannot hold: bytes of a terminal or a file system that are no UTF-8.

    Raises:
        InvalidArgument: names the argument.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(argument, f"{text!r} is not UTF-8") from None


def _check_names(argument: str, names: list[str]) -> None:
    for name in names:
        if not re.fullmatch(LABEL, name) or name in (".", ".."):
            raise InvalidArgument(argument, f"{name!r} cannot be a name")


def _check_unique(argument: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(argument, f"{name!r} is there twice")
