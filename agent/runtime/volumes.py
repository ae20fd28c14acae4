"""A pod's volumes on their way back to what they were at the checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

from agent.manifest import Volume as StoredVolume
from agent.runtime.source import Source
from agent.targets import Volume


def key_of(volume: Volume | StoredVolume) -> str:
    """What makes two volumes the same one."""
    return f"{volume.medium}/{volume.name}"


def stored_for(
    volumes: Iterable[Volume], source: Source, done: set[str]
) -> list[tuple[Volume, StoredVolume]]:
    """Those of a container that the checkpoint has, and that nobody has put back yet."""
    stored = {key_of(volume): volume for volume in source.manifest.volumes}
    wanted = [volume for volume in volumes if key_of(volume) not in done]
    return [(volume, stored[key_of(volume)]) for volume in wanted if key_of(volume) in stored]
