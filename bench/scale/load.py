"""Checkpoints asked for over HTTP: how many a second, and how long until somebody knows what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from bench.scale.http import Connection
from bench.scale.pods import CLUSTER, pod_uid
from bench.scale.stage import Stage
from bench.scale.usage import Usage
from tests.servers.jetstream import Api as JetStream

_TERMINAL = ("ready", "error")

# Seconds between two looks at an action that is watched.
_LOOK = 0.01
# Seconds until all actions have to be over, and between two looks at whether they are.
_PATIENCE, _POLL = 300.0, 0.25


@dataclass
class Load:
    """What came of it. Times in seconds.

    Attributes:
        sent: when each action was asked for, by its id.
        answers: how long each POST took.
        accepting, ending: from the first request to the last answer, and to the last action's end.
        begun: from each request to the moment at which its node said `processing`.
        visible: from the moment at which the broker had an action's last event, until the API told
            it. Of a sample.
        others: cores that were busy with something else.
    """

    sent: dict[str, float] = field(default_factory=dict)
    answers: list[float] = field(default_factory=list)
    accepting: float = 0.0
    ending: float = 0.0
    begun: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    usage: dict[str, Usage] = field(default_factory=dict)
    others: float = 0.0


async def run(stage: Stage, actions: int, rate: float = 0.0) -> Load:
    """Ask for so many checkpoints, each of a random pod, and wait until the last one is over.

    Args:
        rate: of requests in a second; 0 is as fast as they are answered.
    """
    load, meter, began = Load(), stage.meter(), time.time()
    due = iter([began + number / rate if rate else began for number in range(actions)])
    watching = asyncio.create_task(_watch(stage, load))
    await asyncio.gather(*(_post(stage, load, due) for _ in range(stage.size.connections)))
    load.accepting = time.time() - began
    await _read_database(stage, load, began)
    load.usage, load.others = meter.read(), meter.others()
    watching.cancel()
    load.visible = await asyncio.to_thread(_since_stored, stage, await watching)
    return load


async def _post(stage: Stage, load: Load, due: Iterator[float]) -> None:
    """One connection's share of the requests."""
    size = stage.size
    connection = await Connection.open(stage.api.url, stage.api.token)
    for moment in due:
        await asyncio.sleep(max(0.0, moment - time.time()))
        uid = pod_uid(random.randrange(size.all_nodes), random.randrange(size.pods))
        sent = time.time()
        action_id, seconds = await connection.post("/v2/checkpoint/pod", {"pod_id": uid})
        load.sent[action_id] = sent
        load.answers.append(seconds)
    connection.close()


async def _watch(stage: Stage, load: Load) -> dict[str, float]:
    """Look at the newest action until it is over, then at another one; when each was seen so."""
    seen: dict[str, float] = {}
    connection = await Connection.open(stage.api.url, stage.api.token)
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            action_id = next(reversed(load.sent), "")
            if not action_id or action_id in seen:
                await asyncio.sleep(_LOOK)
                continue
            while not await _is_over(connection, action_id):  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(_LOOK)
            seen[action_id] = time.time()
    connection.close()
    return seen


async def _is_over(connection: Connection, action_id: str) -> bool:
    status, _ = await connection.get(f"/v2/checkpoint/status/{action_id}")
    return json.loads(status)["status"] in _TERMINAL


async def _read_database(stage: Stage, load: Load, began: float) -> None:
    """Wait until all actions are over, and read when each of them began and the last one ended."""
    micros = int(began * 1e6)
    database = await stage.connect()
    over = "FROM actions WHERE created >= $1 AND state IN ('ready', 'error')"
    deadline = time.monotonic() + _PATIENCE
    while (ended := await database.fetchval(f"SELECT count(*) {over}", micros)) < len(load.sent):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ended} of {len(load.sent)} actions have ended")
        await asyncio.sleep(_POLL)
    load.ending = await database.fetchval(f"SELECT max(updated) {over}", micros) / 1e6 - began
    failed = "SELECT count(*) FROM actions WHERE created >= $1 AND state = 'error'"
    if count := await database.fetchval(failed, micros):
        raise RuntimeError(f"{count} actions failed")
    said = "SELECT action_id, time FROM transitions WHERE state = 'processing' AND time >= $1"
    for action_id, moment in await database.fetch(said, micros):
        load.begun.append(moment / 1e6 - load.sent[action_id])
    await database.close()


def _since_stored(stage: Stage, seen: dict[str, float]) -> list[float]:
    """How long after the broker had stored its last event each action was seen to be over."""
    found = []
    with JetStream(stage.broker.port) as broker:
        for action_id, moment in seen.items():
            asked = {"last_by_subj": f"action-events.{CLUSTER}.{action_id}"}
            message = broker.ask("STREAM.MSG.GET.ACTION_EVENTS", asked)["message"]
            # Nanoseconds, which are more digits than Python reads.
            stored = datetime.fromisoformat(f"{message['time'][:26].rstrip('Z')}+00:00")
            found.append(moment - stored.timestamp())
    return found
