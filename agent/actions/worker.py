"""What the executor needs to have done, in steps; see engine.py for who does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.actions.rows import Attempt
from agent.host.boot import Moment
from agent.messages.model import ActionRequest, CheckpointOutcome, RestoreOutcome
from agent.operation.recovery import Recovered
from agent.report import Update
from agent.targets import PodRef

Outcome = CheckpointOutcome | RestoreOutcome


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be done.

    Attributes:
        keys: name what it works on; of two plans that share one, the later waits for the other.
        attempt: where the checkpoint will be, or is.
        pod: with UID, namespace and name, where it is one.
        asynchronous: others may begin as soon as everything is captured.
        watches: others do the work, and this action tells of it. It takes no slot, and an agent
            that ends leaves it to the next one.
    """

    keys: frozenset[str]
    attempt: Attempt
    pod: PodRef | None = None
    asynchronous: bool = False
    watches: bool = False


@dataclass(frozen=True, slots=True)
class Reports:
    """What is called on the event loop while an action runs; returns at once.

    Attributes:
        captured: every container runs again, and nothing of the checkpoint can be lost but with
            the agent itself.
    """

    progress: Callable[[Update], None]
    captured: Callable[[CheckpointOutcome], None]


class Untold(Exception):
    """Nobody can tell now what became of an action; the text says why. Later somebody may."""


class Worker(Protocol):
    """Does what actions ask for. All errors are AgentErrors; others are bugs."""

    async def examine(self, request: ActionRequest) -> Plan:
        """Find every reason to refuse that can be found without touching anything."""

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        """Do it. After an error, and when cancelled, everything is as it was before."""

    async def clean_up(self) -> list[Recovered]:
        """Thaw what a dead agent left frozen, and undo what it left half done."""

    async def aftermath(
        self, request: ActionRequest, attempt: Attempt, begun: Moment | None
    ) -> Outcome | None:
        """What a dead agent had completed before it died; None when it had not.

        Args:
            begun: when it had begun the attempt, if it has noted that.

        Raises:
            Untold: nobody can tell now.
            CheckpointUnknown, RestoreUnknown: nobody will be able to tell.
            AgentError: what it failed of.
        """

    def close(self) -> None:
        """Let go of what it holds; nothing runs any more."""
