"""A node as its users meet it: a daemon on a broker, asked by messages, answering by messages.

    with node_on(tmp_path, broker, runc_roots=[...]) as node:
        node.ask("a-1", checkpoint={"pod": {"uid": ...}})
        node.outcome("a-1")  # its last event

Messages are published in the plain NATS protocol, and read back from the stream as it is stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.reports import Stalled, wait_until
from tests.daemons import Daemon, Tables, daemon_in
from tests.integration.trees import processes
from tests.servers.jetstream import Message, Stream
from tests.servers.nats import NatsServer
from tests.servers.nats_client import PlainClient

Json = dict[str, Any]

CLUSTER = "test"
TERMINAL = ("ready", "error")


class Node:
    """One daemon and what it says on the broker."""

    def __init__(self, daemon: Daemon, broker: NatsServer, name: str) -> None:
        self.daemon, self.broker, self.name = daemon, broker, name
        self._events = Stream(broker, "ACTION_EVENTS")
        self._actions = Stream(broker, "ACTIONS")

    def start(self) -> None:
        """Start it; it can be asked when this returns."""
        before = len(self.daemon.lines("broker is ready")) if self.daemon.log.exists() else 0
        self.daemon.start()
        self.daemon.wait_ready()
        wait_until(
            lambda: len(self.daemon.lines("broker is ready")) > before, "the broker being set up"
        )

    def ask(self, action_id: str, **action: Json) -> None:
        """Publish an action: ``checkpoint={...}`` or ``restore={...}``."""
        [kind] = action
        self.publish(json.dumps({"actionId": action_id, **action}).encode(), kind)

    def publish(self, payload: bytes, kind: str = "checkpoint") -> None:
        """Publish bytes that may be no action."""
        with PlainClient(self.broker.port) as client:
            client.publish(f"actions.{CLUSTER}.{self.name}.{kind}", payload)

    def cancel(self, action_id: str) -> None:
        """Ask to give an action up."""
        self.publish(json.dumps({"actionId": action_id}).encode(), "cancel")

    def messages(self, action_id: str) -> list[Message]:
        """What is stored of an action's events."""
        return [each for each in self._events.messages() if each.body["actionId"] == action_id]

    def events(self, action_id: str) -> list[Json]:
        """The same without their envelopes."""
        return [each.body for each in self.messages(action_id)]

    def states(self, action_id: str) -> list[str]:
        """The states it went through, without progress."""
        return [event["state"] for event in self.events(action_id) if "progress" not in event]

    def wait_state(self, action_id: str, *states: str) -> Json:
        """The first event of one of these states, once it is there."""
        found: list[Json] = []

        def arrived() -> bool:
            found[:] = [one for one in self.events(action_id) if one["state"] in states]
            return bool(found)

        try:
            wait_until(arrived, f"{action_id} being {' or '.join(states)}")
        except Stalled as stalled:
            said = self.daemon.log.read_text()[-5000:]
            raise AssertionError(f"{stalled}: {self.events(action_id)}\n{said}") from None
        return found[0]

    def outcome(self, action_id: str) -> Json:
        """Its last event, once it has ended; fails unless everything arrived once and in order."""
        self.wait_state(action_id, *TERMINAL)
        messages = self.messages(action_id)
        events = [each.body for each in messages]
        numbers = [int(event.get("sequence", 0)) for event in events]
        assert numbers == sorted(set(numbers)), events
        assert set(Counter(each.message_id for each in messages).values()) == {1}, messages
        assert [event["state"] in TERMINAL for event in events].count(True) == 1, events
        assert events[-1]["state"] in TERMINAL, events
        return events[-1]

    def ready(self, action_id: str) -> Json:
        """What came of it: a checkpoint or a restore that is done."""
        event = self.outcome(action_id)
        assert event["state"] == "ready", event.get("failure")
        outcome: Json = event.get("checkpoint") or event["restore"]
        return outcome

    def failure(self, action_id: str) -> Json:
        """Why it failed."""
        event = self.outcome(action_id)
        assert event["state"] == "error", event
        failure: Json = event["failure"]
        return failure

    def wait_acknowledged(self) -> None:
        """Wait until the broker has nothing left that this node was to answer."""
        for consumer in (f"{CLUSTER}={self.name}", f"{CLUSTER}={self.name}=cancel"):
            wait_until(lambda who=consumer: not self._actions.owed(who), "acknowledgements")  # type: ignore[misc]

    def stored(self) -> list[Path]:
        """Every file of the daemon's own store."""
        return sorted(path for path in self.daemon.store.rglob("*") if path.is_file())

    def assert_idle(self) -> None:
        """Nothing is left of operations: no working files, no programs at work."""
        state_dir = self.daemon.state_dir
        operations = state_dir / "operations"

        def at_work() -> list[object]:
            files = list(operations.iterdir()) if operations.exists() else []
            own = self.daemon.process.pid if self.daemon.process else 0
            return [*files, *(one for one in processes(str(state_dir)) if one.pid != own)]

        wait_until(lambda: not at_work(), "everything being cleaned up")


@contextmanager
def node_on(
    directory: Path,
    broker: NatsServer,
    *,
    runc_roots: Sequence[Path],
    name: str = "node",
    tables: Tables | None = None,
    env: Mapping[str, str] | None = None,
    started: bool = True,
) -> Iterator[Node]:
    """A node that does not outlive the block.

    Args:
        directory: an existing one; short, for the sockets in it.
        runc_roots: where it looks for pods.
        tables: further settings of its daemon.
        env: of its daemon, beside the test's.
    """
    own: Tables = {
        "node": {"cluster": CLUSTER, "name": name},
        "nats": {"url": broker.url, "ack_wait_seconds": 2},
        "pods": {"runc_roots": [str(root) for root in runc_roots]},
    }
    for table, keys in (tables or {}).items():
        own.setdefault(table, {}).update(keys)
    with daemon_in(directory, own, env) as daemon:
        node = Node(daemon, broker, name)
        if started:
            node.start()
        yield node


def container_of(container_id: str, runc_root: Path) -> Json:
    """A container as a request names it."""
    return {"container": {"id": container_id, "runcRoot": str(runc_root)}}
