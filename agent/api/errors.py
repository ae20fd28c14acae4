"""What only the API can answer with; each class knows its HTTP status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.errors import AgentError


class Refusal(AgentError):
    """Root of the API's own errors."""

    status: ClassVar[int] = 500


@dataclass(eq=False)
class DatabaseFailed(Refusal):
    """The database is away, refuses us, or is not ours."""

    exit_code: ClassVar[int] = 19
    code: ClassVar[str] = "database_failed"
    template: ClassVar[str] = "database: {reason}"
    state: ClassVar[str] = "actions that were accepted go on; their states are kept by the broker"
    hint: ClassVar[str] = "check [api] database, its password, and that the server runs"

    reason: str


@dataclass(eq=False)
class EventStreamFailed(Refusal):
    """The broker cannot be reached, or did not say that it has the action."""

    code: ClassVar[str] = "event_stream_failed"
    template: ClassVar[str] = "failed to connect to the event stream: {reason}"
    state: ClassVar[str] = "no action was begun, or it is given up"
    hint: ClassVar[str] = "try again; with the same Idempotency-Key it is one action at most"

    reason: str


@dataclass(eq=False)
class NoNode(Refusal):
    """There is no node that a restore could go to."""

    code: ClassVar[str] = "no_node"
    template: ClassVar[str] = "failed to create restore: no live node in cluster {cluster!r}{but}"
    state: ClassVar[str] = "nothing was begun"
    hint: ClassVar[str] = "GET /v2/nodes shows the nodes that are there"

    cluster: str
    but: str = ""


@dataclass(eq=False)
class NotCheckpointable(Refusal):
    """No live node has that pod."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "pod_not_found"
    template: ClassVar[str] = "failed to find checkpointable resource: no live node has {pod}"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "check UID, namespace, name and cluster; GET /v2/nodes shows all pods"

    pod: str


@dataclass(eq=False)
class UnknownAction(Refusal):
    """No action of that id was ever asked for here."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "not_found"
    template: ClassVar[str] = "no action {action_id!r}"

    action_id: str


@dataclass(eq=False)
class NoActionOfPod(Refusal):
    """Nothing was ever done with that pod."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "not_found"
    template: ClassVar[str] = "no action of pod {pod_id!r}"

    pod_id: str


@dataclass(eq=False)
class NoCheckpointOfName(Refusal):
    """No checkpoint of that name is `ready`."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "checkpoint_not_found"
    template: ClassVar[str] = "no checkpoint named {name!r} is ready"
    hint: ClassVar[str] = "names are a container's CHECKPOINT_NAME, else NAMESPACE/POD/CONTAINER"

    name: str


@dataclass(eq=False)
class NoSuchPage(Refusal):
    """Nothing is served at that path."""

    status: ClassVar[int] = 404
    code: ClassVar[str] = "no_such_path"
    template: ClassVar[str] = "nothing is at {path}"
    hint: ClassVar[str] = "/docs lists what there is"

    path: str


@dataclass(eq=False)
class Unauthenticated(Refusal):
    """No token, or one that is not valid."""

    status: ClassVar[int] = 401
    code: ClassVar[str] = "unauthenticated"
    template: ClassVar[str] = "{reason}"
    hint: ClassVar[str] = "send `Authorization: Bearer TOKEN`; `checkpoint-agent api token create`"

    reason: str


@dataclass(eq=False)
class Forbidden(Refusal):
    """The token may not do that."""

    status: ClassVar[int] = 403
    code: ClassVar[str] = "forbidden"
    template: ClassVar[str] = "{reason}"

    reason: str


@dataclass(eq=False)
class TooBig(Refusal):
    """A request's body is larger than the configuration allows."""

    status: ClassVar[int] = 413
    code: ClassVar[str] = "too_big"
    template: ClassVar[str] = "the body has more than {limit} bytes"
    hint: ClassVar[str] = "[api] request_bytes is the limit"

    limit: int


@dataclass(eq=False)
class TooSlow(Refusal):
    """A request's body did not come to its end."""

    status: ClassVar[int] = 408
    code: ClassVar[str] = "too_slow"
    template: ClassVar[str] = "the body was not complete after {seconds:.0f} s"
    state: ClassVar[str] = "nothing was begun"

    seconds: float


@dataclass(eq=False)
class TooFast(Refusal):
    """A token, or an address without one, asks more often than the configuration allows."""

    status: ClassVar[int] = 429
    code: ClassVar[str] = "too_fast"
    template: ClassVar[str] = "too many requests; wait {seconds:.1f} s"
    hint: ClassVar[str] = "[api] requests_per_second is the limit"

    seconds: float
