"""What a daemon tells, as documents and as tables for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from rich.console import Group, RenderableType
from rich.text import Text

from agent.cli.figures import count, counted, duration, printable, size
from agent.cli.tables import facts, listing, phases, stored
from agent.messages.model import CheckpointSpec

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agent.actions import Freeze, Thawed
    from agent.messages.model import Action, RestoreOutcome
    from agent.pb.checkpoint_agent.v1.inventory_pb2 import NodeInfo, Pod


def action_document(action: Action) -> dict[str, object]:
    """All that is known of an action."""
    event = dataclasses.asdict(action.event)
    told = ("progress", "checkpoint", "restore", "failure")
    return {
        "action_id": action.action_id,
        "type": action.request.type.value,
        "state": action.state.value,
        "accepted": action.accepted.isoformat(),
        "updated": action.event.time.isoformat(),
        "of": _subject(action),
        "request": dataclasses.asdict(action.request.spec),
        **{name: event[name] for name in told if event[name] is not None},
    }


def action_list(found: Sequence[Action]) -> RenderableType:
    """Actions as a table."""
    if not found:
        return Text("No actions.")
    rows = (
        (
            one.action_id,
            one.request.type.value.removesuffix("_pod"),
            one.state.value,
            _subject(one),
            f"{one.event.time:%Y-%m-%d %H:%M:%S}",
        )
        for one in found
    )
    return listing(("ID", "TYPE", "STATE", "OF", "UPDATED (UTC)"), rows)


def action_facts(action: Action) -> RenderableType:
    """One action."""
    event = action.event
    rows = [
        ("action", action.action_id),
        ("state", action.state.value),
        ("type", action.request.type.value),
        ("of", _subject(action)),
        ("accepted", f"{action.accepted:%Y-%m-%d %H:%M:%S} UTC"),
        ("updated", f"{event.time:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    if event.progress is not None and not action.state.is_terminal:
        rows += [("phase", event.progress.phase), ("raw", size(event.progress.bytes_raw))]
    if event.checkpoint is not None:
        rows += [
            ("path", event.checkpoint.path),
            ("frozen", duration(event.checkpoint.frozen_seconds)),
            ("GPUs", counted(event.checkpoint.gpus)),
            ("stored", stored(event.checkpoint.bytes_stored, event.checkpoint.bytes_raw)),
            ("phases", phases(dict(event.checkpoint.phases))),
        ]
    if event.restore is not None:
        rows += [("from", event.restore.path), ("phases", phases(dict(event.restore.phases)))]
    if event.failure is not None:
        told = event.failure
        rows += [("error", told.message), ("then", told.state), ("try", told.hint)]
    return facts(rows)


def restored(outcome: RestoreOutcome) -> RenderableType:
    """What a daemon has restored."""
    lines = [
        Text(printable(_runs_again(one.container_id, one.pid)), "bold green")
        for one in outcome.members
    ]
    rows = [
        ("not restored", ", ".join(outcome.not_restored)),
        ("from", outcome.path),
        ("wall", duration(outcome.wall_seconds)),
        ("raw", size(outcome.bytes_raw)),
        ("stored", stored(outcome.bytes_stored, outcome.bytes_raw)),
        ("phases", phases(dict(outcome.phases))),
    ]
    return Group(*lines, facts(rows))


def pod_document(pod: Pod) -> dict[str, Any]:
    """A pod, with what is empty too."""
    return _document(pod)


def pod_list(found: Sequence[Pod]) -> RenderableType:
    """Pods as a table, a line for each container."""
    if not found:
        return Text("No pods.")
    rows = (
        (pod.ref.namespace, pod.ref.name, one.name, one.status, one.id[:12], pod.ref.uid)
        for pod in found
        for one in pod.containers
    )
    return listing(("NAMESPACE", "POD", "CONTAINER", "STATUS", "ID", "UID"), rows)


def node_document(node: NodeInfo) -> dict[str, Any]:
    """A node; bytes as numbers, which protobuf's JSON form has as text."""
    document = _document(node)
    for gpu in document["gpus"]:
        gpu["memory"] = int(gpu["memory"])
    return document


def node_facts(node: NodeInfo) -> RenderableType:
    """One node."""
    return facts(
        [
            ("node", f"{node.node}, of cluster {node.cluster}"),
            (
                "agent",
                f"{node.agent_version}, since {node.started.ToDatetime():%Y-%m-%d %H:%M} UTC",
            ),
            ("platform", f"{node.platform}, kernel {node.kernel}"),
            ("tools", f"CRIU {node.criu}, runc {node.runc}"),
            ("pods", str(len(node.pods))),
            ("gpus", ", ".join(f"{gpu.model} {size(gpu.memory)}" for gpu in node.gpus)),
            ("actions", f"{node.running} running, {node.queued} waiting"),
        ]
    )


def frozen(found: Freeze) -> RenderableType:
    """What is frozen, until when, and how to end it."""
    head = Text(f"Frozen: {count(len(found.containers), 'container')}.", "bold green")
    rows = [
        ("containers", ", ".join(found.containers)),
        ("until", f"{found.until:%Y-%m-%d %H:%M:%S} UTC"),
        ("thaw", f"checkpoint-agent thaw {found.freeze_id}"),
    ]
    return Group(head, facts(rows))


def thawed(found: Thawed) -> RenderableType:
    """How long it was frozen."""
    late = "" if found.was_frozen else "; its time was up before"
    return Text(f"Thawed after {duration(found.frozen_seconds)}{late}.", "bold green")


def _subject(action: Action) -> str:
    spec = action.request.spec
    if not isinstance(spec, CheckpointSpec):
        return spec.path
    return str(action.event.pod or spec.target)


def _runs_again(container: str, pid: int) -> str:
    subject = f"Container {container} runs again" if container else "The process runs again"
    return f"{subject}, pid {pid}."


def _document(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
