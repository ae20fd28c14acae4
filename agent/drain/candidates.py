"""Which pods are checkpointed when a node goes, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import InvalidArgument
from agent.heartbeat import drain_kind
from agent.logs import get_logger
from agent.pods import FoundPod, list_pods, resident_bytes
from agent.targets import Kind, PodRef

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that opted in, what to take of it, and the memory of its processes."""

    pod: PodRef
    kind: Kind
    bytes: int


def candidates(roots: Sequence[Path]) -> list[Candidate]:
    """Smallest first: of whatever time there is, that saves the most pods. Blocks."""
    found = []
    for pod in list_pods(roots):
        kind = _kind(pod)
        if kind is not None and pod.containers:
            found.append(Candidate(pod.ref, kind, resident_bytes(pod)))
    return sorted(found, key=lambda each: (each.bytes, each.pod.uid))


def _kind(pod: FoundPod) -> Kind | None:
    try:
        return drain_kind(pod.annotations)
    except InvalidArgument as error:
        log.warning("a pod is not drained", pod=str(pod.ref), reason=str(error))
        return None
