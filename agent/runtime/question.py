"""What one ``checkpoint-runc`` asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.runtime.asked import Asked
from agent.runtime.conversation import Conversation, Creation
from agent.runtime.sandboxes import Container, Sandbox, State


@dataclass(slots=True)
class Question:
    """One container that asks for a checkpoint.

    Attributes:
        limit_seconds: that it was promised an answer within.
        deadline: when these are over, on the monotonic clock.
        waited: seconds of them that went by with others' restores.
    """

    creation: Creation
    asked: Asked
    sandbox: Sandbox
    conversation: Conversation
    limit_seconds: float
    deadline: float
    waited: float = 0.0

    @property
    def name(self) -> str:
        """The container's, in its pod."""
        return self.asked.identity.container

    def record(
        self, state: State, reason: str = "", pid: int = 0, volumes: Iterable[str] = ()
    ) -> Container:
        """What is written down of it."""
        target = self.creation.target
        return Container(
            state=state,
            container_id=target.container,
            root=str(target.root),
            path=self.sandbox.decision.path or "",
            reason=reason,
            pid=pid,
            volumes=set(volumes),
        )
