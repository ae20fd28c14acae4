"""An API as its clients meet it, with a broker behind it, and nodes with pods."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests

from tests.api_nodes import node_on, pod
from tests.api_servers import Api, api_in
from tests.servers.nats import nats_server
from tests.waiting import eventually

# UIDs of the pods of each node. A second node is there for what is to leave the first one.
NODES: Final = {"node-a": ("pod-1", "pod-2"), "node-b": ("pod-3",)}
PODS: Final = tuple(uid for uids in NODES.values() for uid in uids)


@dataclass(frozen=True, slots=True)
class Live:
    """Where it listens, and a token that may do everything.

    ``proven`` are the operations that were seen to work, and to refuse a wrong token.
    """

    url: str
    token: str
    session: requests.Session
    proven: set[str] = field(default_factory=set)

    @property
    def headers(self) -> dict[str, str]:
        """What shows the token."""
        return {"Authorization": f"Bearer {self.token}"}


def checkpoint_name(uid: str) -> str:
    """What a pod's container calls its checkpoints."""
    return f"name-of-{uid}"


@contextlib.contextmanager
def live_api(folder: Path) -> Iterator[Live]:
    """An API that knows its pods, with everything that belongs to it below ``folder``."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(nats_server(folder))
        for name, uids in NODES.items():
            pods = [pod(uid, uid=uid, containers=[("app", checkpoint_name(uid))]) for uid in uids]
            stack.enter_context(node_on(broker, folder, *pods, name=name))
        api = stack.enter_context(api_in(folder, broker.url))
        session = stack.enter_context(requests.Session())
        eventually(lambda: _pods(api) == sorted(PODS), "an API that knows the pods")
        yield Live(api.url, api.token, session)


def _pods(api: Api) -> list[str]:
    answer = api.get("/v2/nodes")
    nodes = answer.json() if answer.status == 200 else []
    return sorted(pod["uid"] for node in nodes for pod in node["pods"])
