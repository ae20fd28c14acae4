"""An API with access to a cluster, and nodes that say what becomes of pods there."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.api.database.tables import ActionRow
from agent.messages.events import event_message
from agent.messages.model import ActionType, State
from agent.messages.requests import to_json
from agent.targets import PodRef
from tests.api_rows import restored, row, said
from tests.api_stages import Stage, accepted, put, stage_on
from tests.daemons import Tables
from tests.kubernetes_pods import small_pod
from tests.servers.kubernetes import KubernetesServer, kubernetes_server
from tests.servers.nats import NatsServer

_NUMBERS = itertools.count()


@dataclass
class Clustered:
    """``namespace`` is the test's own, in the cluster as well."""

    stage: Stage
    kubernetes: KubernetesServer
    namespace: str = field(default_factory=lambda: f"ns-{next(_NUMBERS)}")

    def __post_init__(self) -> None:
        self.kubernetes.store.add("namespaces", "", {"metadata": {"name": self.namespace}})

    def checkpoint(self, **fields: Any) -> ActionRow:  # noqa: ANN401 - the columns'
        """One that is ready, of a pod that is gone, with what was kept of it."""
        pod = small_pod(namespace=self.namespace)
        made = row(
            **{
                "state": "ready",
                "handed_over": True,
                "sequence": 3,
                "path": f"s3://bucket/{uuid.uuid4()}",
                "pod_uid": pod["metadata"]["uid"],
                "pod_namespace": self.namespace,
                "pod_name": "web",
                "upload": {"pod_spec": pod["spec"], "pod_metadata_spec": pod["metadata"]},
                **fields,
            }
        )
        put(self.stage.api, made)
        return made

    def restore(self, source: ActionRow, reason: str = "manual", **body: object) -> str:
        """Ask for it; the action's id."""
        asked = {"action_id": source.action_id, "reason": reason, **body}
        return accepted(self.stage.api, "restore", asked)

    def pod(self, name: str = "web") -> dict[str, Any]:
        """One of the test's namespace."""
        return self.kubernetes.pod(self.namespace, name)

    def has_pod(self, name: str = "web") -> bool:
        """Whether there is one."""
        return name in [each["metadata"]["name"] for each in self.kubernetes.pods(self.namespace)]

    def when_created(self, act: Callable[[], object]) -> None:
        """Do something the moment that the test has a pod: tests are slow, machines are slower."""

        def created(pod: Mapping[str, Any]) -> None:
            if pod["metadata"]["namespace"] == self.namespace:
                act()

        self.kubernetes.on_pod_created.append(created)

    def report(
        self,
        action_id: str,
        sequence: int,
        state: State,
        node: str = "node-b",
        **fields: Any,  # noqa: ANN401 - an event's
    ) -> None:
        """What the node that has the pod says of its restore."""
        pod = self.pod()
        ref = PodRef(pod["metadata"]["uid"], self.namespace, pod["metadata"]["name"])
        given = {"time": datetime.now(UTC), "pod": ref, **fields}
        event = said(action_id, sequence, state, type=ActionType.RESTORE, **given).event
        assert event is not None
        message = event_message(event, cluster="test", node=node)
        self.stage.say(f"action-events.test.{action_id}", to_json(message))

    def finish(self, action_id: str, node: str = "node-b") -> None:
        """Have a node restore the pod."""
        self.report(action_id, 1, State.PROCESSING, node)
        outcome = restored(self.pod()["metadata"]["annotations"]["checkpoint-agent/restore"])
        self.report(action_id, 2, State.READY, node, restore=outcome)

    def error(self, action_id: str) -> dict[str, Any]:
        """Wait until an action has failed; why."""
        done = self.stage.api.wait_state(action_id, "error", "ready")
        assert done["status"] == "error", done
        return dict(done["details"]["error"])


@contextlib.contextmanager
def clustered_on(
    broker: NatsServer,
    folder: Path,
    pending_seconds: float = 600.0,
    tables: Tables | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Clustered]:
    """An API of a test's own, and a cluster that nothing runs in."""
    with kubernetes_server(folder) as kubernetes:
        access = {
            "in_cluster": True,
            "service_account_dir": str(kubernetes.service_account()),
            "pending_seconds": pending_seconds,
        }
        given: Tables = {"cluster": access, "node": {"cluster": "test"}, **(tables or {})}
        with stage_on(broker, folder, given, {**kubernetes.environment, **(env or {})}) as stage:
            yield Clustered(stage, kubernetes)
