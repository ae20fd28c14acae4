"""What a container's bundle says of it that runc's state does not: environment and mounts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from agent.messages.requests import MAX_NAME
from agent.pods.files import REMEMBERED, Stamp, read_object, stamp_of

# On a container, where the engine passes annotations of pods on; CHECKPOINT_NAME counts for more.
NAME_ANNOTATION = "checkpoint-agent/name"


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host that a container has mounted."""

    destination: str
    source: Path


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """The part of a config.json that matters here."""

    checkpoint_name: str | None = None
    mounts: tuple[Mount, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


def bundle_facts(bundle: Path) -> BundleFacts:
    """What a bundle's config.json says; nothing when it cannot be read."""
    path = bundle / "config.json"
    stamp = stamp_of(path)
    return _read(path, stamp) if stamp else BundleFacts()


@lru_cache(maxsize=REMEMBERED)
def _read(path: Path, stamp: Stamp) -> BundleFacts:
    config = read_object(path) or {}
    annotations = _annotations(config.get("annotations"))
    annotated = _name(dict(annotations).get(NAME_ANNOTATION, ""))
    return BundleFacts(
        checkpoint_name=_checkpoint_name(config.get("process")) or annotated,
        mounts=tuple(_mounts(config.get("mounts"))),
        annotations=tuple(annotations),
    )


def _checkpoint_name(process: object) -> str | None:
    """CHECKPOINT_NAME; of several the last one counts, as in Kubernetes."""
    env = process.get("env") if isinstance(process, dict) else None
    found = None
    for variable in env if isinstance(env, list) else ():
        if isinstance(variable, str) and variable.startswith("CHECKPOINT_NAME="):
            found = _name(variable.partition("=")[2])
    return found


def _name(text: str) -> str | None:
    """None where it is none, or none that a request could have either."""
    return text if 0 < len(text) <= MAX_NAME and text.isprintable() else None


def _mounts(mounts: object) -> list[Mount]:
    """The mounts that show a directory of the host at a path."""
    found = []
    for each in mounts if isinstance(mounts, list) else ():
        if not isinstance(each, dict):
            continue
        destination, source = each.get("destination"), each.get("source")
        if not isinstance(destination, str) or not isinstance(source, str):
            continue
        if source.startswith("/") and "\0" not in source and ".." not in Path(source).parts:
            found.append(Mount(destination, Path(source)))
    return found


def _annotations(annotations: object) -> list[tuple[str, str]]:
    pairs = annotations.items() if isinstance(annotations, dict) else ()
    return [(key, value) for key, value in pairs if isinstance(value, str)]
