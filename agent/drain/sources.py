"""The sources that a node's settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.drain.clouds import SERVICES, CloudSource
from agent.drain.file import FileSource
from agent.drain.notice import Source
from agent.drain.shutdown import ShutdownSource
from agent.settings import Drain

# There while systemd runs the machine.
_SYSTEMD: Final = Path("/run/systemd/system")


def sources(settings: Drain) -> list[Source]:
    """Those of this machine itself; a cluster's may be added."""
    found: list[Source] = [FileSource(settings.file)]
    if settings.metadata:
        service = SERVICES[settings.metadata]()
        found.append(CloudSource(settings.metadata, service, settings.metadata_url))
    if settings.on_stop and _SYSTEMD.exists():
        found.append(ShutdownSource())
    return found
