"""What clients ask of a million actions, over HTTP, one request after the other."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from bench.scale.http import Connection
from bench.scale.pods import node_name
from bench.scale.stage import Stage

# Each is asked so often before it counts: the database's cache and plans, the API's connections.
_WARM = 10
# What is not promised may take long, and is asked one time in so many.
_SELDOM = 5


@dataclass(frozen=True, slots=True)
class Query:
    """``path`` makes one request's. ``promised``: it has to be answered in time."""

    name: str
    path: Callable[[], str]
    promised: bool = True


async def run(stage: Stage) -> dict[Query, list[float]]:
    """How long each answer took, in seconds."""
    connection = await Connection.open(stage.api.url, stage.api.token)
    found = {}
    for query in await _queries(stage):
        looks = stage.size.looks if query.promised else stage.size.looks // _SELDOM
        for _ in range(_WARM):
            await connection.get(query.path())
        found[query] = [(await connection.get(query.path()))[1] for _ in range(looks)]
    connection.close()
    return found


async def _queries(stage: Stage) -> list[Query]:
    database = await stage.connect()
    some = " FROM actions WHERE type = 'checkpoint_pod' AND state = 'ready' ORDER BY random() LIMIT"
    pods = [row[0] for row in await database.fetch(f"SELECT pod_uid {some} 1000")]
    ids = [row[0] for row in await database.fetch(f"SELECT action_id {some} 1000")]
    names = [row[0] for row in await database.fetch(
        "SELECT name FROM checkpoint_names ORDER BY random() LIMIT 1000")]  # fmt: skip
    await database.close()
    nodes = stage.size.all_nodes

    def listed(**filters: Callable[[], str]) -> Callable[[], str]:
        return lambda: "/v2/actions?" + urlencode({key: each() for key, each in filters.items()})

    def node() -> str:
        return node_name(random.randrange(nodes))

    def team() -> str:
        return f"team-{random.randrange(20)}"

    return [
        Query("list", listed()),
        Query("list, a page further back", listed(before=lambda: random.choice(ids))),
        Query("list, type=restore_pod", listed(type=lambda: "restore_pod")),
        Query("list, type=heartbeat", listed(type=lambda: "heartbeat")),
        Query("list, state=error", listed(state=lambda: "error")),
        Query("list, state=processing (there are none)", listed(state=lambda: "processing")),
        Query("list, node", listed(node=node)),
        Query("list, node, state=error", listed(node=node, state=lambda: "error")),
        Query("list, namespace", listed(namespace=team)),
        Query("list, namespace, state=error", listed(namespace=team, state=lambda: "error")),
        Query(
            "list, namespace, type=heartbeat (none lately)",
            listed(namespace=team, type=lambda: "heartbeat"),
            promised=False,
        ),
        Query(
            "list, namespace, type=heartbeat, state=error (none lately)",
            listed(namespace=team, type=lambda: "heartbeat", state=lambda: "error"),
            promised=False,
        ),
        Query("list, pod=web (all have it)", listed(pod=lambda: "web")),
        Query("list, pod=-0042-7 (one has it)", listed(pod=lambda: "-0042-7"), promised=False),
        Query("from_pod", lambda: f"/v2/actions/from_pod/{random.choice(pods)}"),
        Query("path", lambda: f"/v2/checkpoint/path?name={quote(random.choice(names))}"),
        Query("status", lambda: f"/v2/checkpoint/status/{random.choice(ids)}"),
        Query("one action", lambda: f"/v2/actions/{random.choice(ids)}"),
    ]
