"""What the routes work with; app.py puts it where they find it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from agent.api.database import Database
from agent.api.limits import Rates
from agent.api.metrics import ApiMetrics
from agent.api.pod_restores import PodRestores
from agent.events import Control
from agent.settings import Settings

# Wrong tokens of one address: a person mistypes, a program guesses. Per second, and at once.
_WRONG, _WRONG_AT_ONCE = 1.0, 20.0


@dataclass(frozen=True, slots=True)
class Parts:
    """One instance's.

    ``ending`` is set when it stops: what streams to clients ends then. ``pods`` is None without
    access to Kubernetes. ``wrong`` counts wrong tokens by address, and nothing else: others may
    come from there too, behind a proxy.
    """

    settings: Settings
    database: Database
    control: Control
    metrics: ApiMetrics
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    pods: PodRestores | None = None
    wrong: Rates = field(default_factory=lambda: Rates(_WRONG, _WRONG_AT_ONCE))


# A plain function would be called in a thread, which costs more than all that it does.
async def _parts(connection: HTTPConnection) -> Parts:
    return cast(Parts, connection.app.state.parts)


Here = Annotated[Parts, Depends(_parts)]
