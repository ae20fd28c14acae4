"""Events as protobuf messages, and as what the agent works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from agent.messages.model import (
    ActionType,
    CheckpointOutcome,
    Event,
    Failure,
    Progress,
    RestoredMember,
    RestoreOutcome,
    State,
)
from agent.messages.requests import pod_message
from agent.pb.checkpoint_agent.v1 import actions_pb2 as pb
from agent.targets import PodRef

# Phases as they come one after the other. A map of protobuf has no order.
_DUMPING = ("freeze", "dump", "drain", "thaw")
_CUDA = ("cuda_lock", "cuda_checkpoint")
_PHASES = (
    *("prepare", *_CUDA, "start", *_DUMPING, "cuda_restore", "store", "commit"),
    *("unpack", "restore"),
)


def event_message(event: Event, *, cluster: str, node: str) -> pb.ActionEvent:
    """An event of this node."""
    message = pb.ActionEvent(
        action_id=event.action_id,
        sequence=event.sequence,
        state=pb.ActionEvent.State.Value(event.state.value),
        type=pb.ActionType.Value(event.type.value),
        cluster=cluster,
        node=node,
        time=timestamp(event.time),
        reason=event.reason,
    )
    if event.pod is not None:
        message.pod.CopyFrom(pod_message(event.pod))
    if event.progress is not None:
        message.progress.CopyFrom(pb.Progress(**asdict(event.progress)))
    if event.checkpoint is not None:
        message.checkpoint.CopyFrom(_checkpoint_message(event.checkpoint))
    if event.restore is not None:
        message.restore.CopyFrom(_restore_message(event.restore))
    if event.failure is not None:
        message.failure.CopyFrom(failure_message(event.failure))
    return message


def event_from(message: pb.ActionEvent) -> Event:
    """What event_message has written."""
    return Event(
        action_id=message.action_id,
        sequence=message.sequence,
        state=State(pb.ActionEvent.State.Name(message.state)),
        type=ActionType(pb.ActionType.Name(message.type)),
        time=message.time.ToDatetime(UTC),
        pod=_pod(message),
        progress=_progress(message.progress) if message.HasField("progress") else None,
        checkpoint=_checkpoint(message.checkpoint) if message.HasField("checkpoint") else None,
        restore=_restore(message.restore) if message.HasField("restore") else None,
        failure=failure_from(message.failure) if message.HasField("failure") else None,
        reason=message.reason,
    )


def failure_message(failure: Failure) -> pb.ErrorInfo:
    """The message that failure_from reads."""
    message = pb.ErrorInfo(
        code=failure.code,
        message=failure.message,
        state=failure.state,
        hint=failure.hint,
        field=failure.field,
        log_tail=failure.log_tail,
    )
    message.details.update(dict(failure.details))
    return message


def failure_from(message: pb.ErrorInfo) -> Failure:
    """What failure_message has written; numbers among the details come back as floats."""
    return Failure(
        code=message.code,
        message=message.message,
        state=message.state,
        hint=message.hint,
        field=message.field,
        log_tail=message.log_tail,
        details=MessageToDict(message.details),
    )


def timestamp(time: datetime) -> Timestamp:
    """A protobuf timestamp."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _pod(message: pb.ActionEvent) -> PodRef | None:
    if not message.HasField("pod"):
        return None
    return PodRef(message.pod.uid, message.pod.namespace, message.pod.name)


def _progress(message: pb.Progress) -> Progress:
    return Progress(
        phase=message.phase,
        bytes_raw=message.bytes_raw,
        bytes_stored=message.bytes_stored,
        bytes_total=message.bytes_total,
        bytes_per_second=message.bytes_per_second,
    )


def _checkpoint_message(outcome: CheckpointOutcome) -> pb.CheckpointOutcome:
    fields = asdict(outcome)
    fields["name"] = outcome.name or ""
    fields["fallback_reason"] = outcome.fallback_reason or ""
    return pb.CheckpointOutcome(**fields)


def _checkpoint(message: pb.CheckpointOutcome) -> CheckpointOutcome:
    return CheckpointOutcome(
        checkpoint_id=message.checkpoint_id,
        path=message.path,
        name=message.name or None,
        frozen_seconds=message.frozen_seconds,
        wall_seconds=message.wall_seconds,
        phases=_in_order(message.phases),
        bytes_raw=message.bytes_raw,
        bytes_stored=message.bytes_stored,
        chunks=message.chunks,
        streams=message.streams,
        codec=message.codec,
        streamed=message.streamed,
        fallback_reason=message.fallback_reason or None,
        containers=tuple(message.containers),
        platform=message.platform,
        cuda_seconds=message.cuda_seconds,
        gpus=tuple(message.gpus),
    )


def _in_order(phases: Mapping[str, float]) -> dict[str, float]:
    """Known ones as they come, then others, then the rest that nothing claims."""
    others = sorted(phases.keys() - set(_PHASES) - {"unaccounted"})
    return {name: phases[name] for name in (*_PHASES, *others, "unaccounted") if name in phases}


def _restore_message(outcome: RestoreOutcome) -> pb.RestoreOutcome:
    fields = asdict(outcome)
    fields["members"] = [pb.RestoredMember(**asdict(member)) for member in outcome.members]
    return pb.RestoreOutcome(**fields)


def _restore(message: pb.RestoreOutcome) -> RestoreOutcome:
    return RestoreOutcome(
        path=message.path,
        wall_seconds=message.wall_seconds,
        phases=_in_order(message.phases),
        bytes_raw=message.bytes_raw,
        bytes_stored=message.bytes_stored,
        members=tuple(
            RestoredMember(member.name, member.container_id, member.pid)
            for member in message.members
        ),
        not_restored=tuple(message.not_restored),
    )
