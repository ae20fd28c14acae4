"""The Actions API with rows that somebody has written, and nodes that nobody runs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.api.database import Database, open_database
from agent.api.database.connection import now
from agent.api.database.tables import ActionRow, TransitionRow
from agent.messages.model import CheckpointOutcome, Failure, Progress, RestoreOutcome
from agent.messages.requests import to_json
from agent.pb.checkpoint_agent.v1 import actions_pb2
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.settings import Api as ApiSettings
from tests.api_servers import Api, api_in
from tests.servers.nats import NatsServer
from tests.servers.nats_client import PlainClient

CLUSTER = "test"
# Of a pod: Kubernetes would refuse it, a broker does not.
HOSTILE = '<img src=x onerror="document.title=1">'
MIB = 1 << 20
SECOND = 1_000_000

PHASES = {
    "prepare": 0.02,
    "start": 0.15,
    "freeze": 0.03,
    "dump": 1.2,
    "drain": 0.01,
    "thaw": 0.09,
    "store": 0.3,
    "commit": 0.05,
    "unaccounted": 0.15,
}


@dataclass
class Site:
    """One instance of the API. ``reader`` is a token with nothing but the scope `read`."""

    api: Api
    broker: NatsServer
    database: Database
    reader: str
    nodes: list[pb.NodeInfo] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.api.url

    @property
    def token(self) -> str:
        """One that may do everything."""
        return self.api.token

    async def add(self, name: str, namespace: str = "default", **fields: Any) -> str:  # noqa: ANN401 - columns
        """A row for an action; its id. What is not given is of a checkpoint that waits."""
        ago = int(fields.pop("ago", 0) * SECOND)
        usual: dict[str, Any] = {
            "type": "checkpoint_pod",
            "state": "initialized",
            "cluster": CLUSTER,
            "node": "node-a",
            "created": now() - ago,
            "updated": now(),
            "handed_over": True,
            "pod_uid": str(uuid.uuid4()),
            "pod_namespace": namespace,
            "pod_name": name,
            "kind": "rootfs",
            "reason": "manual",
            "request": {"namespace": namespace, "pod_name": name, "kind": "rootfs"},
        }
        row = ActionRow(action_id=str(uuid.uuid4()), **(usual | fields))
        async with self.database.write() as session:
            session.add(row)
        return row.action_id

    async def change(self, action_id: str, **fields: Any) -> None:  # noqa: ANN401 - columns
        """Change a row; its new state, if it is one, is noted in the timeline."""
        async with self.database.write() as session:
            row = await session.get_one(ActionRow, action_id, with_for_update=True)
            if fields.get("state", row.state) != row.state:
                session.add(
                    TransitionRow(
                        action_id=action_id,
                        sequence=row.sequence + 1,
                        state=fields["state"],
                        time=fields.pop("time", now()),
                    )
                )
                row.sequence += 1
            for name, value in fields.items():
                setattr(row, name, value)

    def announce(self) -> None:
        """Renew the nodes' entries in the inventory."""
        with PlainClient(self.broker.port) as client:
            for node in self.nodes:
                key = f"$KV.checkpoint-inventory.{node.cluster}.{node.node}"
                client.publish(key, to_json(node))


@asynccontextmanager
async def site_in(directory: Path, broker: NatsServer) -> AsyncIterator[Site]:
    """A site without actions and nodes; it does not outlive the block."""
    with api_in(directory, broker.url) as api:
        api.wait_ready()
        settings = ApiSettings(database=f"sqlite:///{directory}/api.db")
        database = open_database(settings)
        try:
            yield Site(api, broker, database, api.make_token("watcher", "read"))
        finally:
            await database.close()


def node_info(
    name: str,
    pods: Sequence[tuple[str, str]],
    *,
    cluster: str = CLUSTER,
    gpus: int = 0,
    running: int = 0,
    queued: int = 0,
) -> pb.NodeInfo:
    """A node with pods by name and status, each of two containers."""
    info = pb.NodeInfo(
        cluster=cluster,
        node=name,
        agent_version="0.3.0",
        kernel="6.18.44",
        platform="linux/amd64",
        criu="4.2.1",
        runc="1.1.5",
        running=running,
        queued=queued,
        pods=[_pod(pod, status) for pod, status in pods],
        gpus=[
            pb.Gpu(uuid=f"GPU-{n}", model="NVIDIA H100 80GB HBM3", memory=80 << 30, driver="580.65")
            for n in range(gpus)
        ],
    )
    info.started.FromSeconds((now() // SECOND) - 9 * 86_400)
    return info


def _pod(name: str, status: str) -> pb.Pod:
    return pb.Pod(
        ref=actions_pb2.PodRef(uid=str(uuid.uuid4()), namespace="default", name=name),
        runtime="containerd",
        containers=[
            pb.PodContainer(name="app", image="registry.example/app:1.4", status=status),
            pb.PodContainer(
                name="proxy", image="envoy:1.30", status=status, checkpoint_name="nightly"
            ),
        ],
    )


def progress(raw: int, total: int = 0, phase: str = "dump") -> dict[str, Any]:
    """How far an action is, in bytes."""
    return asdict(Progress(phase, raw, raw * 3 // 4, total, 410.0 * MIB))


def checkpointed(
    raw: int = 2048 * MIB,
    *,
    frozen: float = 1.33,
    phases: Mapping[str, float] = PHASES,
    stored: bool = True,
) -> dict[str, Any]:
    """What a checkpoint came to, or without ``stored`` what is known of it when it runs again."""
    outcome = CheckpointOutcome(
        checkpoint_id=str(uuid.uuid4()),
        path="s3://checkpoints/web",
        name=None,
        frozen_seconds=frozen,
        wall_seconds=sum(phases.values()),
        phases=phases,
        bytes_raw=raw,
        bytes_stored=raw * 73 // 100 if stored else 0,
        chunks=1024,
        streams=4,
        codec="zstd",
        containers=("app", "proxy"),
        platform="linux/amd64",
    )
    return _as_stored(asdict(outcome))


def restored(raw: int = 2048 * MIB) -> dict[str, Any]:
    """What a restore came to."""
    phases = {"prepare": 0.01, "start": 0.08, "restore": 1.9, "unaccounted": 0.02}
    outcome = RestoreOutcome("s3://checkpoints/web", 2.01, phases, raw, raw * 73 // 100)
    return _as_stored(asdict(outcome))


def failure(message: str = "runc could not checkpoint it: criu failed") -> dict[str, Any]:
    """A dump that CRIU refused."""
    return asdict(
        Failure(
            code="dump_failed",
            message=message,
            state="it runs as before; nothing was stored",
            hint="the end of CRIU's log names what it cannot dump",
            log_tail="Error (criu/fsnotify.c:412): fsnotify: cannot open handle",
        )
    )


def _as_stored(outcome: dict[str, Any]) -> dict[str, Any]:
    """As the projection writes it: PostgreSQL's JSON would lose the order of phases."""
    return outcome | {"phases": [list(each) for each in outcome["phases"].items()]}
