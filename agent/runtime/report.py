"""Who else wants to know what becomes of a pod's containers: whoever waits for its action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from agent.actions import Executor, Expected, PodRestores
from agent.errors import AgentError, AlreadyExists, InvalidArgument
from agent.logs import get_logger
from agent.manifest import Manifest
from agent.messages.model import ActionRequest, ActionType, RestoredMember, RestoreSpec
from agent.messages.requests import check_action_id
from agent.runtime.sandboxes import Sandbox

_log = get_logger(__name__)


class Reporter(Protocol):
    """Hears of each pod that it begins, and then of its containers. Must not raise."""

    async def began(self, sandbox: Sandbox, manifest: Manifest) -> None:
        """A pod's first container is about to be restored, or an agent has been restarted in the
        middle; all of ``manifest``'s members are expected.
        """

    async def restored(
        self, sandbox: Sandbox, member: RestoredMember, phases: Mapping[str, float]
    ) -> None:
        """One runs again; ``phases`` are seconds by what they were spent on."""

    async def fell_back(self, sandbox: Sandbox, error: AgentError) -> None:
        """One did not come back, so the pod did not."""

    async def is_open(self, sandbox: Sandbox) -> bool:
        """Whether somebody still waits for it."""


class ActionReporter:
    """Makes an action of each pod, in the node's journal as every other."""

    def __init__(self, executor: Executor, pods: PodRestores) -> None:
        self._executor, self._pods = executor, pods
        self._open: set[str] = set()

    async def began(self, sandbox: Sandbox, manifest: Manifest) -> None:
        """Take the action, or find the one that was taken already."""
        uid, path = sandbox.pod.uid, sandbox.decision.path or ""
        try:
            action = await self._executor.submit(self._request(sandbox))
        except (AlreadyExists, InvalidArgument):
            # Whoever writes the annotation may be anybody: another action's, or no id.
            sandbox.decision.action_id = None
            return await self._began_unasked(sandbox, manifest)
        except AgentError as error:
            _log.warning("a restore into a pod is not reported", pod=uid, reason=str(error))
            return None
        if not action.state.is_terminal:
            self._open.add(uid)
            members = frozenset(member.name for member in manifest.members)
            self._pods.expect(
                uid, Expected(path, members, manifest.bytes_raw, manifest.bytes_stored)
            )
            for name, container in sandbox.containers.items():
                if container.state == "restored" and name in members:
                    found = RestoredMember(name, container.container_id, container.pid)
                    self._pods.restored(uid, found, {})
        return None

    async def restored(
        self, sandbox: Sandbox, member: RestoredMember, phases: Mapping[str, float]
    ) -> None:
        """It is one less to wait for."""
        if sandbox.pod.uid in self._open:
            self._pods.restored(sandbox.pod.uid, member, phases)

    async def fell_back(self, sandbox: Sandbox, error: AgentError) -> None:
        """The action ends; one that could not even be taken is told of all the same."""
        uid = sandbox.pod.uid
        # An agent that was restarted has taken it before.
        if uid in self._open or await self.is_open(sandbox):
            self._open.discard(uid)
            self._pods.failed(uid, error)
            return
        try:
            kind = ActionType.RESTORE
            await self._executor.refuse(sandbox.action_id, kind, error, sandbox.pod)
        except AgentError as unwritten:
            _log.warning("a cold start is not reported", pod=uid, reason=str(unwritten))

    async def is_open(self, sandbox: Sandbox) -> bool:
        """Whether its action has not ended."""
        try:
            action = await self._executor.get(sandbox.action_id)
        except AgentError:
            return False
        spec = action.request.spec
        # Whoever writes the annotation may be anybody, and the action another pod's.
        pod = spec.pod if isinstance(spec, RestoreSpec) else None
        return pod is not None and pod.uid == sandbox.pod.uid and not action.state.is_terminal

    async def _began_unasked(self, sandbox: Sandbox, manifest: Manifest) -> None:
        try:
            await self._executor.submit(self._request(sandbox))
        except AgentError as error:
            uid = sandbox.pod.uid
            _log.warning("a restore into a pod is not reported", pod=uid, reason=str(error))
        else:
            await self.began(sandbox, manifest)

    @staticmethod
    def _request(sandbox: Sandbox) -> ActionRequest:
        spec = RestoreSpec(sandbox.decision.path or "", pod=sandbox.pod)
        return ActionRequest(check_action_id(sandbox.action_id), spec)
