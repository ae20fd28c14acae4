"""What is said when an action has ended or was cleaned up after: a line in the log, and metrics."""

from __future__ import annotations

from agent.errors import StoreFailed
from agent.logs import get_logger
from agent.messages.model import CheckpointOutcome, Event, RestoreOutcome
from agent.metrics import Metrics
from agent.operation.recovery import Recovered

_log = get_logger(__name__)


class Summary:
    """Counts and tells."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def reached(self, event: Event) -> None:
        """An action has come into another state."""
        if event.progress is None:
            self._metrics.state_reached(event.type.value, event.state.value)

    def ended(self, event: Event) -> None:
        """An action is terminal; the line is written in its context."""
        values: dict[str, object] = {"type": event.type.value, "state": event.state.value}
        if event.pod is not None:
            values["pod"] = str(event.pod)
        if event.checkpoint is not None:
            values |= self._checkpointed(event.checkpoint)
        if event.restore is not None:
            values |= _restored(event.restore)
        if event.failure is None:
            _log.info("action done", **values)
            return
        if event.failure.code == StoreFailed.code:
            self._metrics.store_failed()
        values |= {"code": event.failure.code, "reason": event.failure.message}
        if event.failure.state:
            # Not ``state``: that is the action's.
            values["now"] = event.failure.state
        if event.failure.log_tail:
            values["log_tail"] = event.failure.log_tail
        _log.warning("action failed", **values)

    def _checkpointed(self, outcome: CheckpointOutcome) -> dict[str, object]:
        self._metrics.frozen(outcome.frozen_seconds, outcome.cuda_seconds)
        self._metrics.stored(
            bytes_raw=outcome.bytes_raw,
            bytes_stored=outcome.bytes_stored,
            wall_seconds=outcome.wall_seconds,
        )
        return {
            "path": outcome.path,
            "frozen_seconds": outcome.frozen_seconds,
            "wall_seconds": outcome.wall_seconds,
            "bytes_raw": outcome.bytes_raw,
            "bytes_stored": outcome.bytes_stored,
            "streamed": outcome.streamed,
            "phases": dict(outcome.phases),
        }


def _restored(outcome: RestoreOutcome) -> dict[str, object]:
    return {
        "path": outcome.path,
        "wall_seconds": outcome.wall_seconds,
        "bytes_raw": outcome.bytes_raw,
        "phases": dict(outcome.phases),
    }


def tell_recovered(recovered: Recovered) -> None:
    """What had to be done about an operation whose agent had died."""
    _log.warning(
        "cleaned up after an agent that died",
        kind=recovered.kind,
        target=recovered.target,
        thawed=recovered.thawed,
        removed=recovered.removed,
        problem=recovered.problem,
    )
