"""What the routes work with; app.py puts it where they find it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from agent.api.database import Database
from agent.api.metrics import ApiMetrics
from agent.api.pod_restores import PodRestores
from agent.events import Control
from agent.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """One instance's.

    ``ending`` is set when it stops: what streams to clients ends then. ``pods`` is None without
    access to Kubernetes.
    """

    settings: Settings
    database: Database
    control: Control
    metrics: ApiMetrics
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    pods: PodRestores | None = None


# A plain function would be called in a thread, which costs more than all that it does.
async def _parts(connection: HTTPConnection) -> Parts:
    return cast(Parts, connection.app.state.parts)


Here = Annotated[Parts, Depends(_parts)]
