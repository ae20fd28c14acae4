"""What can be configured, with every default and its reason. One class is one table of the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from agent.config import DEFAULT_STATE_DIR
from agent.settings.checks import (
    AbsolutePath,
    Address,
    Compression,
    DatabaseUrl,
    NodeToken,
    ServerUrls,
    SocketPath,
    refuse,
)
from agent.settings.criu import CriuOpts
from agent.settings.restore import Restore
from agent.settings.table import Table as _Table
from agent.settings.upkeep import Drain, Heartbeat


class Node(_Table):
    """Who this node is in subjects and in the inventory; see :data:`NodeToken` for the letters."""

    # One cluster is what most have.
    cluster: NodeToken = "default"
    # The host's name, as kubelet has it too. Dots become underscores: a dot parts a subject.
    name: Annotated[NodeToken, Field(validate_default=True)] = Field(
        default_factory=lambda: os.uname().nodename
    )


class Nats(_Table):
    """The broker that actions come from and events go to. Without a URL there is none: gRPC only.

    Secrets come from files or from the environment, never from the configuration file.
    """

    # One server or several, separated by commas; nats:// or tls://.
    url: ServerUrls = ""
    user: str | None = None
    password: SecretStr | None = None
    password_file: AbsolutePath | None = None
    token: SecretStr | None = None
    token_file: AbsolutePath | None = None
    nkey_file: AbsolutePath | None = None
    creds_file: AbsolutePath | None = None
    tls_ca: AbsolutePath | None = None
    tls_cert: AbsolutePath | None = None
    tls_key: AbsolutePath | None = None
    # An action whose node says nothing for so long is delivered again. The agent speaks up three
    # times as often, so that one lost message does no harm.
    ack_wait_seconds: Annotated[float, Field(ge=1, le=3600)] = 30.0
    # What was delivered so often and never finished took the agent down each time: it is answered
    # with an error, so that the sixth time does not come.
    max_deliver: Annotated[int, Field(ge=1, le=100)] = 5
    # The inventory forgets a node that does not renew its entry for so long. Renewed at a third.
    lease_seconds: Annotated[float, Field(ge=3, le=3600)] = 30.0
    # Of streams and bucket, when this agent is the first to need them: 1 works on any broker, a
    # cluster of three wants 3.
    replicas: Annotated[int, Field(ge=1, le=5)] = 1

    @property
    def servers(self) -> tuple[str, ...]:
        """The URLs one by one; none when no broker is configured."""
        return tuple(url.strip() for url in self.url.split(",") if url.strip())

    @model_validator(mode="after")
    def _one_way_in(self) -> Nats:
        if self.password and self.password_file:
            raise refuse("password_file", "a password is given already")
        if self.token and self.token_file:
            raise refuse("token_file", "a token is given already")
        ways = {
            "user": self.user or self.password or self.password_file,
            "token_file": self.token or self.token_file,
            "nkey_file": self.nkey_file,
            "creds_file": self.creds_file,
        }
        used = [name for name, value in ways.items() if value]
        if len(used) > 1:
            raise refuse(used[1], f"{used[0]} is given too; a broker takes one of them")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise refuse("tls_key", "a certificate and its key go together")
        return self


class Storage(_Table):
    """Where checkpoints go, and where requests may point to."""

    # A directory works on a fresh machine. On a cluster it should be an object store: what is on
    # the node's own disk is gone when the node is.
    store: Annotated[str, Field(min_length=1)] = str(DEFAULT_STATE_DIR / "checkpoints")
    # Stores and directories beside it, at or below which a request may write to and restore from.
    # None: whoever may send an action may not choose files for root to write.
    roots: tuple[str, ...] = ()

    @property
    def allowed(self) -> tuple[str, ...]:
        """The store, and what is allowed beside it."""
        return (self.store, *self.roots)


class Checkpoint(_Table):
    """How checkpoints are taken."""

    # As the command line's: one connection seldom fills the way to an object store, four do.
    streams: Annotated[int, Field(ge=1, le=64)] = 4
    # zstd:1 that yields to CRIU.
    compression: Compression = "zstd"
    # Of memory that is held all the time, so that containers run again before their bytes are
    # compressed. 0: a node's memory is for its pods; each checkpoint takes its small buffers then.
    staging_bytes: Annotated[int, Field(ge=0)] = 0
    # Every checkpoint compresses on all cores: with more at once, each freeze takes longer. Two, so
    # that one captures while the other waits for the store.
    concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    # What stands still for longer is given up. Five minutes, as for callers ([rpc]): 64 GiB
    # are out in time where the store takes 230 MB/s, and one that hangs is found out.
    frozen_limit_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    # More than a node has containers; what comes on top stays in the broker or is refused.
    queue_limit: Annotated[int, Field(ge=1, le=100_000)] = 1024
    # JetStream may deliver an action again for as long as it keeps it; it is answered, not done
    # again, while the node remembers it.
    history_days: Annotated[float, Field(gt=0, le=365)] = 7.0
    criu_opts: CriuOpts = CriuOpts()


class Pods(_Table):
    """Where pods are looked for."""

    # containerd's and k3s's (which does not follow the state directory), and CRI-O's and plain
    # runc's. What is not there is skipped.
    runc_roots: Annotated[tuple[AbsolutePath, ...], Field(min_length=1)] = (
        Path("/run/containerd/runc/k8s.io"),
        Path("/run/runc"),
    )


class Rpc(_Table):
    """The gRPC service."""

    # Mode 0600: root may ask it anything, nobody else anything.
    socket: SocketPath = Path("/run/checkpoint-agent/agent.sock")
    # HOST:PORT to listen on as well; only with all three files below.
    address: Address = ""
    tls_cert: AbsolutePath | None = None
    tls_key: AbsolutePath | None = None
    tls_client_ca: AbsolutePath | None = None
    # The longest that a caller may keep a pod frozen. Five minutes: liveness probes and cluster
    # members' leases have given up long before.
    freeze_limit_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300.0

    @model_validator(mode="after")
    def _mutual_tls(self) -> Rpc:
        files = {key: getattr(self, key) for key in ("tls_cert", "tls_key", "tls_client_ca")}
        if self.address:
            for key, value in files.items():
                if value is None:
                    raise refuse(key, "missing: address is served over mutual TLS only")
        return self


class Metrics(_Table):
    """Prometheus metrics and /healthz."""

    # Off when "". Only for the machine itself: names of failures are nobody else's business. 9464
    # is where exporters of processes' own metrics are looked for.
    address: Address = "127.0.0.1:9464"


class Api(_Table):
    """The Actions API, `checkpoint-agent api`. Its broker is the one of [nats]."""

    # Only for the machine itself, unless it has a certificate or a proxy that has one.
    address: Annotated[Address, Field(min_length=1)] = "127.0.0.1:8800"
    # A file for one instance, postgresql://USER@HOST/NAME for any number of them.
    database: DatabaseUrl = f"sqlite:///{DEFAULT_STATE_DIR}/api.db"
    database_password: SecretStr | None = None
    database_password_file: AbsolutePath | None = None
    tls_cert: AbsolutePath | None = None
    tls_key: AbsolutePath | None = None
    # Whoever reads along has the tokens: other addresses than loopback need TLS, or somebody's word
    # that there is a proxy in front that speaks it.
    plain_http: bool = False
    # A node is forgotten after [nats] lease_seconds, and one that starts again reports what became
    # of its actions. Five minutes: more than a machine's restart takes, less than a person waits.
    node_lost_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    # Of a request's body. Pod specs are at most what etcd stores, 1.5 MiB, and mostly some KiB.
    request_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 2 << 20
    # Of one token; twice as many at once. A controller that drains a large node asks for hundreds.
    requests_per_second: Annotated[float, Field(gt=0, le=1e6)] = 100.0

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine reaches it."""
        host = self.address.rpartition(":")[0].strip("[]")
        return host in ("localhost", "::1") or host.startswith("127.")

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Api:
        if self.database_password and self.database_password_file:
            raise refuse("database_password_file", "a password is given already")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise refuse("tls_key", "a certificate and its key go together")
        if not (self.is_loopback or self.tls_cert or self.plain_http):
            reason = (
                "tokens would travel in the clear: give tls_cert and tls_key, or set plain_http"
            )
            raise refuse("address", f"{reason} = true behind a proxy that speaks TLS")
        return self


class Cluster(_Table):
    """Kubernetes' API server. Nobody asks it unless one of the first two says how.

    Secrets are in files: in the kubeconfig, or in the directory of a pod's service account.
    """

    # Of a file with a token, a tokenFile or a client certificate; nothing is started to get one.
    kubeconfig: AbsolutePath | None = None
    # KUBERNETES_SERVICE_HOST and _PORT, and the directory below: as for every pod.
    in_cluster: bool = False
    service_account_dir: AbsolutePath = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    # Until a pod that was made for a restore has to be under way. Ten minutes: a new node of a
    # cluster that grows takes three to five, an image of 10 GB as long again.
    pending_seconds: Annotated[float, Field(ge=1, le=86_400)] = 600.0

    @property
    def is_configured(self) -> bool:
        """Whether there is a cluster to ask."""
        return self.in_cluster or self.kubeconfig is not None

    @model_validator(mode="after")
    def _one_of_them(self) -> Cluster:
        if self.in_cluster and self.kubeconfig is not None:
            raise refuse("kubeconfig", "in_cluster is given too; there is one API server")
        return self


class Log(_Table):
    """What is said on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    # auto: for people on a terminal, JSON lines everywhere else.
    format: Literal["auto", "json", "console"] = "auto"


class Settings(_Table):
    """All of it."""

    state_dir: AbsolutePath = DEFAULT_STATE_DIR
    # What running captures get to finish when the daemon is stopped; then they are rolled back. A
    # third of what systemd gives by default (90 s), the rest is for rolling back and flushing.
    stop_seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0
    node: Node = Field(default_factory=Node)
    nats: Nats = Nats()
    storage: Storage = Storage()
    checkpoint: Checkpoint = Checkpoint()
    pods: Pods = Pods()
    heartbeat: Heartbeat = Heartbeat()
    drain: Drain = Drain()
    restore: Restore = Restore()
    rpc: Rpc = Rpc()
    metrics: Metrics = Metrics()
    api: Api = Api()
    cluster: Cluster = Cluster()
    log: Log = Log()

    @property
    def restore_socket(self) -> Path | None:
        """Where `checkpoint-runc` asks, None when nobody answers it."""
        given = self.restore.socket
        if given is None:
            return self.rpc.socket.with_name("restore.sock")
        return Path(given) if given else None
