"""Runs one action on this machine: what it names, how the node's settings apply, where it goes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent import retention
from agent.actions import aftermath
from agent.actions.outcomes import checkpointed, restored, so_far
from agent.actions.overrides import compression_of, criu_options, node_options, streams_of
from agent.actions.places import allowed_checkpoint, allowed_store
from agent.actions.pod_restores import PodRestores
from agent.actions.rows import Attempt
from agent.actions.worker import Outcome, Plan, Reports
from agent.capture.buffers import SharedPool
from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.checkpoint.subject import find_process
from agent.config import Tools
from agent.errors import InvalidArgument
from agent.host import runc
from agent.host.boot import Moment
from agent.host.cuda import Cuda
from agent.host.facts import platform_name
from agent.manifest import Options, Pod
from agent.messages.model import ActionRequest, CheckpointSpec, RestoreSpec
from agent.operation.recovery import Recovered, recover
from agent.pods import find_pod
from agent.report import Captured
from agent.restore import RestoreRequest, restore
from agent.settings import Settings
from agent.store import Store, checkpoint_path
from agent.targets import PodRef, ProcessTarget, RuncTarget, Volume

T = TypeVar("T")

# Of a message, by what agent.restore calls them.
_RESTORE_FIELDS = {
    "path": "restore.path",
    "member": "restore.member",
    "id": "restore.containerId",
    "bundle": "restore.bundle",
    "tcp": "restore.overrides.criuOpts",
}


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a checkpoint's request means here and now."""

    keys: frozenset[str]
    members: tuple[MemberRequest, ...]
    pod: PodRef | None = None
    volumes: tuple[Volume, ...] = ()
    name: str | None = None


class Engine:
    """Does what the executor is asked for."""

    def __init__(
        self, settings: Settings, tools: Tools, pods: PodRestores, cuda: Cuda | None = None
    ) -> None:
        """``cuda``: the driver, as long as the agent lives; without, it is asked anew each time."""
        self._settings, self._tools, self._pods, self._cuda = settings, tools, pods, cuda
        self._platform = platform_name()
        # Looks things up for a thousand actions without taking a thread from those that copy.
        self._looking = ThreadPoolExecutor(2, thread_name_prefix="examine")
        # Of each action that a dead agent has left, for as long as its store hangs.
        self._settling = ThreadPoolExecutor(8, thread_name_prefix="aftermath")
        self._pool: SharedPool | None = None

    async def examine(self, request: ActionRequest) -> Plan:
        """Every reason to refuse that can be found without touching anything.

        Raises:
            InvalidArgument, TargetNotFound, PodNotFound, PodAmbiguous, TargetNotCheckpointable
        """
        spec = request.spec
        if isinstance(spec, CheckpointSpec):
            return await self._look(lambda: self._plan_checkpoint(spec))
        return await self._look(lambda: self._plan_restore(spec))

    async def run(self, request: ActionRequest, plan: Plan, reports: Reports) -> Outcome:
        """Do it. Raises what agent.checkpoint and agent.restore raise."""
        if isinstance(request.spec, CheckpointSpec):
            return await self._checkpoint(request.spec, plan, reports)
        return await self._restore(request.spec, plan, reports)

    async def clean_up(self) -> list[Recovered]:
        """Undo what dead operations have left; make ready the memory that checkpoints share."""
        recovered = await recover(tools=lambda: self._tools, state_dir=self._settings.state_dir)
        length = self._settings.checkpoint.staging_bytes
        if length and self._pool is None:
            self._pool = await asyncio.to_thread(SharedPool, length)
        return recovered

    async def aftermath(
        self, request: ActionRequest, attempt: Attempt, begun: Moment | None
    ) -> Outcome | None:
        """What a dead agent had completed, from what is stored and what runs.

        Of a pod that Kubernetes makes: what others go on completing.
        """
        spec = request.spec
        if isinstance(spec, RestoreSpec):
            if spec.pod is not None:
                return await self._pods.outcome(spec.pod.uid, spec.path)
            if begun is not None and not begun.is_of_this_boot:
                # What ran then has ended with the machine, whatever has its name today.
                return None
        stored = await asyncio.get_running_loop().run_in_executor(
            self._settling, aftermath.stored, request, attempt
        )
        if stored is None:
            return None
        store, manifest = stored
        path = checkpoint_path(store, attempt.checkpoint_id)
        if isinstance(spec, CheckpointSpec):
            return aftermath.committed(manifest, path, self._platform)
        restoring = self._restore_request(spec, store, attempt.checkpoint_id)
        return aftermath.running(manifest, path, restoring, begun)

    def close(self) -> None:
        """End its threads."""
        self._looking.shutdown()
        self._settling.shutdown(wait=False, cancel_futures=True)

    def _plan_checkpoint(self, spec: CheckpointSpec) -> Plan:
        subject, store = self._subject(spec), self._store(spec)
        self._request(spec, subject, store, "")
        return Plan(
            keys=subject.keys,
            # Anew for each attempt: what a dead one has left is never mistaken for this one's.
            attempt=Attempt(checkpoint_id=self._new_id(spec, subject), store=store.url),
            pod=subject.pod,
            asynchronous=bool(spec.overrides.asynchronous),
        )

    def _new_id(self, spec: CheckpointSpec, subject: _Subject) -> str:
        """Of a pod's heartbeat one by which the others of that pod are found again."""
        if spec.reason != "heartbeat" or subject.pod is None:
            return str(uuid.uuid4())
        pod, cluster = subject.pod, self._settings.node.cluster
        name = spec.name or subject.name
        return retention.new_id(retention.Owner(cluster, pod.namespace, pod.name, name))

    def _plan_restore(self, spec: RestoreSpec) -> Plan:
        store, name = self._source(spec)
        if spec.pod is not None:
            keys = frozenset({f"pod {spec.pod.uid}"})
            return Plan(keys, Attempt(name, store.url), spec.pod, watches=True)
        self._restore_request(spec, store, name)
        return Plan(keys=frozenset({_restore_key(spec)}), attempt=Attempt(name, store.url))

    async def _checkpoint(self, spec: CheckpointSpec, plan: Plan, reports: Reports) -> Outcome:
        # Again: while it waited for its turn, a container may have been replaced.
        subject = await self._look(lambda: self._subject(spec))
        store = await self._look(lambda: self._store(spec))
        request = self._request(spec, subject, store, plan.attempt.checkpoint_id)
        path = checkpoint_path(store, plan.attempt.checkpoint_id)

        def captured(found: Captured) -> None:
            reports.captured(so_far(found, request, path, self._platform))

        result = await checkpoint(
            request,
            tools=self._tools,
            state_dir=self._settings.state_dir,
            observer=reports.progress,
            on_captured=captured,
            pool=self._pool,
            cuda=self._cuda,
        )
        return checkpointed(result, self._platform)

    async def _restore(self, spec: RestoreSpec, plan: Plan, reports: Reports) -> Outcome:
        if spec.pod is not None:
            return await self._pods.outcome(spec.pod.uid, spec.path)
        store, name = await self._look(lambda: self._source(spec))
        try:
            result = await restore(
                self._restore_request(spec, store, name),
                tools=self._tools,
                state_dir=self._settings.state_dir,
                observer=reports.progress,
                cuda=self._cuda,
            )
        except InvalidArgument as error:
            field = _RESTORE_FIELDS.get(error.argument, error.argument)
            raise InvalidArgument(field, error.reason) from error
        return restored(result)

    def _store(self, spec: CheckpointSpec) -> Store:
        directory = spec.overrides.directory
        return allowed_store(directory, self._settings.storage, "checkpoint.overrides.directory")

    def _source(self, spec: RestoreSpec) -> tuple[Store, str]:
        return allowed_checkpoint(spec.path, self._settings.storage, "restore.path")

    def _subject(self, spec: CheckpointSpec) -> _Subject:
        """What is there now. Reads runc's state files."""
        target = spec.target
        if isinstance(target, PodRef):
            return self._pod(target)
        if isinstance(target, ProcessTarget):
            find_process(target)
            return _Subject(frozenset({str(target)}), (MemberRequest(target),))
        container = runc.load(target)
        return _Subject(frozenset({_key(container.target)}), (MemberRequest(target),))

    def _pod(self, ref: PodRef) -> _Subject:
        pod = find_pod(ref, self._settings.pods.runc_roots)
        names = [each.checkpoint_name for each in pod.containers if each.checkpoint_name]
        return _Subject(
            keys=frozenset({f"pod {pod.ref.uid}", *(_key(each.target) for each in pod.containers)}),
            members=tuple(MemberRequest(each.target, each.name) for each in pod.containers),
            pod=pod.ref,
            volumes=pod.volumes,
            name=names[0] if names else None,
        )

    def _request(
        self, spec: CheckpointSpec, subject: _Subject, store: Store, checkpoint_id: str
    ) -> CheckpointRequest:
        given, node = spec.overrides, self._settings.checkpoint
        where = "checkpoint.overrides"
        defaults = node_options(node.criu_opts, pod=subject.pod is not None)
        pod = subject.pod
        return CheckpointRequest(
            members=subject.members,
            store=store,
            streams=streams_of(given.streams, node.streams, f"{where}.streams"),
            compression=compression_of(given.compression, node.compression, f"{where}.compression"),
            name=spec.name or subject.name,
            options=criu_options(given.criu_opts, defaults, f"{where}.criuOpts"),
            kind=spec.kind,
            pod=Pod(uid=pod.uid, namespace=pod.namespace, name=pod.name) if pod else None,
            volumes=subject.volumes,
            checkpoint_id=checkpoint_id or None,
            reason="heartbeat" if spec.reason == "heartbeat" else "manual",
            frozen_limit=node.frozen_limit_seconds,
        )

    def _restore_request(self, spec: RestoreSpec, store: Store, name: str) -> RestoreRequest:
        prefix = spec.overrides.pod_name
        if prefix is not None and not runc.is_valid_id(prefix):
            raise InvalidArgument("restore.overrides.podName", f"{prefix!r} begins no container id")
        return RestoreRequest(
            store=store,
            checkpoint_id=name,
            container=spec.container_id,
            bundle=Path(spec.bundle) if spec.bundle else None,
            runc_root=Path(spec.runc_root) if spec.runc_root else None,
            member=spec.member,
            # Only what is given is set, and takes the place of what was given at the dump.
            options=criu_options(spec.overrides.criu_opts, Options(), "restore.overrides.criuOpts"),
            container_prefix=prefix,
        )

    async def _look(self, look: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._looking, look)


def _key(target: RuncTarget) -> str:
    return f"container {target.root.resolve() / target.container}"


def _restore_key(spec: RestoreSpec) -> str:
    """Two restores to one name wait for each other; the second one fails then, and says why."""
    return f"restore {spec.container_id or spec.path} {spec.member or ''}"
