"""What pods ask for in their annotations. Anybody who may make a pod writes these."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import InvalidArgument
from agent.heartbeat.durations import parse_duration
from agent.pods import PREFIX
from agent.settings import Heartbeat
from agent.targets import Kind

HEARTBEAT: Final = f"{PREFIX}heartbeat"
KEEP: Final = f"{PREFIX}keep"
KIND: Final = f"{PREFIX}kind"
DRAIN: Final = f"{PREFIX}drain"

# With its writable layer: what nobody asked for at the time is brought back in another pod, whose
# files are those of the image.
DEFAULT_KIND: Final = Kind.ROOTFS

# Seconds: a year. More was meant to be something else.
_LONGEST: Final = 366 * 86_400.0
_MOST_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class Wish:
    """A heartbeat: every so many seconds, what is taken, and how many are kept."""

    interval: float
    kind: Kind
    keep: int


def wish_of(annotations: Mapping[str, str], settings: Heartbeat) -> Wish | None:
    """The heartbeat that a pod asks for; None when it asks for none.

    Raises:
        InvalidArgument: it asks for what cannot be; names the annotation.
    """
    if (text := annotations.get(HEARTBEAT)) is None:
        return None
    try:
        interval = parse_duration(text)
    except ValueError as error:
        raise InvalidArgument(HEARTBEAT, str(error)) from None
    if not settings.minimum_seconds <= interval <= _LONGEST:
        reason = f"{interval:g} s is not from {settings.minimum_seconds:g} s to a year"
        raise InvalidArgument(HEARTBEAT, reason)
    return Wish(interval, _kind(annotations), keep_of(annotations, settings.keep))


def drain_kind(annotations: Mapping[str, str]) -> Kind | None:
    """What to take of a pod when its node goes; None when the pod does not ask for that.

    A pod that asks for a heartbeat does, also where its interval cannot be used.

    Raises:
        InvalidArgument: an annotation says neither yes nor no; names it.
    """
    text = annotations.get(DRAIN, "true" if HEARTBEAT in annotations else "false")
    if text not in ("true", "false"):
        raise InvalidArgument(DRAIN, 'is neither "true" nor "false"')
    return _kind(annotations) if text == "true" else None


def keep_of(annotations: Mapping[str, str], default: int) -> int:
    """How many of the checkpoints that nobody asked for are kept of a pod.

    Raises:
        InvalidArgument: the annotation says no number that can be.
    """
    text = annotations.get(KEEP, str(default))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MOST_KEPT:
        raise InvalidArgument(KEEP, f"is no number from 1 to {_MOST_KEPT}")
    return int(text)


def _kind(annotations: Mapping[str, str]) -> Kind:
    try:
        return Kind(annotations.get(KIND, DEFAULT_KIND))
    except ValueError:
        reason = f"is none of {', '.join(kind.value for kind in Kind)}"
        raise InvalidArgument(KIND, reason) from None
