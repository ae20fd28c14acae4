"""Restores into pods that Kubernetes makes: what brings containers back, and the action that tells.

A kubelet creates a pod's containers one by one, and each is restored in that moment
(agent/runtime). The pod's action is over when all of them are back, or when one cannot be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.errors import AgentError, RestoreFailed
from agent.messages.model import RestoredMember, RestoreOutcome

# Seconds from the first container to the last. In between a kubelet pulls images.
_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Expected:
    """A pod under way: the checkpoint's path, and its members by name. Sizes in bytes."""

    path: str
    members: frozenset[str]
    bytes_raw: int = 0
    bytes_stored: int = 0


@dataclass(slots=True)
class _Pod:
    """What is known of one, in whichever order it was told."""

    began: float = field(default_factory=time.monotonic)
    expected: Expected | None = None
    restored: dict[str, RestoredMember] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    failure: AgentError | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def missing(self) -> frozenset[str]:
        """Members that are not back yet."""
        return self.expected.members - self.restored.keys() if self.expected else frozenset()

    @property
    def is_decided(self) -> bool:
        """Whether all of it is back, or some of it will not be."""
        return self.failure is not None or (self.expected is not None and not self.missing)


class PodRestores:
    """All of this node, by the pods' UIDs. For the event loop's thread.

    Tell of pods only whose action is open: what nobody waits for is kept for ever.
    """

    def __init__(self, patience_seconds: float = _PATIENCE) -> None:
        self._patience = patience_seconds
        self._pods: dict[str, _Pod] = {}

    def expect(self, uid: str, expected: Expected) -> None:
        """A pod's first container is about to be restored."""
        self._pod(uid).expected = expected
        self._pod(uid).changed.set()

    def restored(self, uid: str, member: RestoredMember, phases: Mapping[str, float]) -> None:
        """One is back, and runs; ``phases`` are seconds by what they were spent on."""
        pod = self._pod(uid)
        pod.restored[member.name] = member
        for phase, seconds in phases.items():
            pod.phases[phase] = pod.phases.get(phase, 0.0) + seconds
        pod.changed.set()

    def failed(self, uid: str, error: AgentError) -> None:
        """One will not come back; of several reasons the first one counts."""
        pod = self._pod(uid)
        pod.failure = pod.failure or error
        pod.changed.set()

    async def outcome(self, uid: str, path: str) -> RestoreOutcome:
        """Wait until it is clear what has become of a pod, which is forgotten then.

        Raises:
            AgentError: what kept a container from coming back.
            RestoreFailed: one was not even created within ten minutes.
        """
        pod = self._pod(uid)
        try:
            async with asyncio.timeout(self._patience):
                while not pod.is_decided:
                    pod.changed.clear()
                    await pod.changed.wait()
        except TimeoutError:
            self._pods.pop(uid, None)
            names = ", ".join(sorted(pod.missing)) or "its containers"
            reason = f"the kubelet did not create {names} within {self._patience:.0f} s"
            raise RestoreFailed(f"pod {uid}", reason) from None
        # Not in a `finally`: who is only interrupted comes again after a restart.
        self._pods.pop(uid, None)
        if pod.failure is not None:
            raise pod.failure
        return _outcome(pod, path)

    def _pod(self, uid: str) -> _Pod:
        return self._pods.setdefault(uid, _Pod())


def _outcome(pod: _Pod, path: str) -> RestoreOutcome:
    expected = pod.expected or Expected(path, frozenset())
    wall = time.monotonic() - pod.began
    phases = dict(pod.phases)
    # What the kubelet took between two containers, and before the first.
    phases["waiting"] = max(0.0, wall - sum(phases.values()))
    return RestoreOutcome(
        path=path,
        wall_seconds=round(wall, 6),
        phases={phase: round(seconds, 6) for phase, seconds in phases.items()},
        bytes_raw=expected.bytes_raw,
        bytes_stored=expected.bytes_stored,
        members=tuple(pod.restored[name] for name in sorted(expected.members)),
    )
