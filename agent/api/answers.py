"""Rows as the contract's bodies, and errors as its ApiError."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.responses import JSONResponse

from agent.api.database.tables import ActionRow, TransitionRow
from agent.api.errors import Refusal
from agent.api.schemas import Action, ActionDetail, Step
from agent.errors import AgentError, InvalidArgument, PodAmbiguous
from agent.messages.model import State

# The contract wants a UUID where there is no checkpoint yet.
NIL: Final = str(uuid.UUID(int=0))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_BAD_REQUEST: Final = (InvalidArgument, PodAmbiguous)


def action(row: ActionRow) -> Action:
    """One action of a list."""
    return Action(**_fields(row))


def detail(row: ActionRow, steps: Sequence[TransitionRow]) -> ActionDetail:
    """All of one action."""
    outcome, upload = row.outcome or {}, row.upload or {}
    timeline = [Step(sequence=each.sequence, state=each.state, time=iso(each.time))
                for each in steps]  # fmt: skip
    if not steps or steps[0].state != State.INITIALIZED.value:
        first = Step(sequence=-1, state=State.INITIALIZED.value, time=iso(row.created))
        timeline.insert(0, first)
    phases = dict(outcome.get("phases") or [])
    return ActionDetail(
        **_fields(row),
        phases=phases,
        timeline=timeline,
        containers=list(outcome.get("containers") or []),
        outcome={**outcome, "phases": phases} if outcome else None,
        pod_spec=upload.get("pod_spec"),
        pod_metadata_spec=upload.get("pod_metadata_spec"),
        persistent_volume_claim=upload.get("persistent_volume_claim"),
    )


def why(row: ActionRow) -> str | None:
    """What a person needs to know of an action that ended with `error`."""
    failure = row.failure
    if failure is None or row.state != State.ERROR.value:
        return None
    parts = (failure.get("message"), failure.get("state"), failure.get("hint"))
    return "; ".join(str(part) for part in parts if part) or failure.get("code")


def refusal(error: AgentError) -> JSONResponse:
    """An error as the contract's ApiError."""
    if isinstance(error, Refusal):
        status = error.status
    else:
        status = 400 if isinstance(error, _BAD_REQUEST) else 500
    details = {
        "code": error.code,
        "state": error.state,
        "hint": error.hint,
        **{name: str(value) for name, value in error.fields().items() if value is not None},
    }
    return api_error(status, str(error), details, _headers(status, error))


def api_error(
    status: int, message: str, details: object = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An ApiError."""
    body = {"message": message, "code": str(status), "details": details}
    return JSONResponse(body, status, headers)


def iso(micros: int) -> str:
    """A time as RFC 3339 has it."""
    time = _EPOCH + timedelta(microseconds=micros)
    return time.isoformat().replace("+00:00", "Z")


def is_uuid(text: str) -> bool:
    """Whether it is a UUID in the form in which everybody writes them."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _headers(status: int, error: AgentError) -> dict[str, str] | None:
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if status == 408:
        # What still comes of that request is not read.
        return {"Connection": "close"}
    seconds = error.fields().get("seconds")
    return {"Retry-After": str(int(float(str(seconds))) + 1)} if status == 429 else None


def _fields(row: ActionRow) -> dict[str, Any]:
    outcome = row.outcome or {}
    checkpoint_id = row.checkpoint_id or ""
    ended = row.state == State.READY.value and outcome
    return {
        "action_id": row.action_id,
        "action_timestamp": iso(row.created),
        "checkpoint_completed_timestamp": iso(row.completed) if row.completed else None,
        "checkpoint_id": checkpoint_id if is_uuid(checkpoint_id) else NIL,
        "details": _details(row, outcome),
        "gpu": row.gpu,
        "node_name": row.node or None,
        "platform": row.platform,
        "reason": row.reason or None,
        "status": row.state,
        "total_duration": round(outcome["wall_seconds"] * 1e9) if ended else None,
        "total_io": outcome["bytes_stored"] if ended else None,
        "type": row.type,
    }


def _details(row: ActionRow, outcome: dict[str, Any]) -> dict[str, Any]:
    pod = {"uid": row.pod_uid, "namespace": row.pod_namespace, "name": row.pod_name}
    return {
        "cluster": row.cluster,
        "pod": pod if any(pod.values()) else None,
        "kind": row.kind or None,
        "name": outcome.get("name"),
        "request": row.request,
        "progress": row.progress,
        "frozen_seconds": outcome.get("frozen_seconds"),
        "bytes_raw": outcome.get("bytes_raw"),
        "bytes_stored": outcome.get("bytes_stored") or None,
        "path": row.path,
        "restored_from": row.restored_from,
        "error": row.failure,
    }
