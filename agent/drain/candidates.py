"""Which pods are checkpointed when a node goes, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.actions import Executor
from agent.errors import InvalidArgument, StoreFailed
from agent.heartbeat import drain_kind, keep_of
from agent.logs import get_logger
from agent.messages.model import State
from agent.pods import FoundPod, list_pods, resident_bytes
from agent.targets import Kind, PodRef

log = get_logger(__name__)

# The newest actions that are looked at: more than a node has pods, and read in 0.1 s.
_LOOKED_AT: Final = 300


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that opted in, what to take of it, and the memory of its processes.

    ``keep`` is how many of its checkpoints stay; all of them where it is None.
    """

    pod: PodRef
    kind: Kind
    bytes: int
    keep: int | None


async def saved_lately(executor: Executor, seconds: float) -> set[str]:
    """UIDs of the pods of which a heartbeat or a drain has made a checkpoint since then.

    By the journal, which knows also what an agent before this one has done.
    """
    since = datetime.now(UTC) - timedelta(seconds=seconds)
    try:
        actions = await executor.list({State.READY}, _LOOKED_AT)
    except StoreFailed as error:
        log.warning("pods are drained in whichever order", reason=str(error))
        return set()
    return {
        action.event.pod.uid
        for action in actions
        if action.request.spec.reason == "heartbeat"
        and action.event.pod is not None
        and action.event.time >= since
    }


def candidates(roots: Sequence[Path], saved: Collection[str], default_keep: int) -> list[Candidate]:
    """Smallest first: of whatever time there is, that saves the most pods. Blocks.

    Args:
        saved: UIDs of pods that come after all others, as they would lose the least.
    """
    found = []
    for pod in list_pods(roots):
        kind = _kind(pod)
        if kind is not None and pod.containers:
            found.append(Candidate(pod.ref, kind, resident_bytes(pod), _keep(pod, default_keep)))
    return sorted(found, key=lambda each: (each.pod.uid in saved, each.bytes, each.pod.uid))


def _kind(pod: FoundPod) -> Kind | None:
    try:
        return drain_kind(pod.annotations)
    except InvalidArgument as error:
        log.warning("a pod is not drained", pod=str(pod.ref), reason=str(error))
        return None


def _keep(pod: FoundPod, default: int) -> int | None:
    try:
        return keep_of(pod.annotations, default)
    except InvalidArgument as error:
        # Saved all the same; but whatever was meant, less must not be deleted than that.
        log.warning("a pod's checkpoints all stay", pod=str(pod.ref), reason=str(error))
        return None
