"""Finds pods: groups the containers that runc knows by the pod that they say they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.errors import InvalidArgument, PodAmbiguous, PodNotFound, TargetNotCheckpointable
from agent.pods.annotations import instance
from agent.pods.bundle import bundle_facts
from agent.pods.crun import crun_containers
from agent.pods.model import FoundPod, PodContainer
from agent.pods.records import Record, records
from agent.pods.volumes import volumes
from agent.targets import PodRef


def list_pods(roots: Sequence[Path]) -> list[FoundPod]:
    """The pods of which at least a container or the sandbox runs, by namespace, name and UID.

    Reads runc's state files; takes about 20 ms for 200 containers that were seen before. What
    cannot be read is skipped.
    """
    pods = (_pod(group) for group in _by_pod(records(roots)))
    return sorted(
        (pod for pod in pods if pod is not None),
        key=lambda pod: (pod.ref.namespace, pod.ref.name, pod.ref.uid),
    )


def find_pod(ref: PodRef, roots: Sequence[Path]) -> FoundPod:
    """The one pod that is what was asked for: every part that was given is equal.

    Raises:
        InvalidArgument: neither a UID nor both namespace and name were given.
        PodNotFound: there is none here.
        PodAmbiguous: there are several that run.
        TargetNotCheckpointable: no container of it runs, or they are not runc's.
    """
    if not ref.uid and not (ref.namespace and ref.name):
        raise InvalidArgument("pod", "give its UID, or its namespace and name")
    groups = _by_pod(record for record in records(roots) if _matches(ref, record.identity.pod))
    found = [pod for group in groups if (pod := _pod(group)) is not None]
    if len(found) > 1:
        raise PodAmbiguous(str(ref), _candidates(found))
    if found and found[0].containers:
        return found[0]
    if any(_matches(ref, each.pod) for each in crun_containers(roots)):
        raise TargetNotCheckpointable(str(ref), "crun runs it; the agent works with runc only")
    if groups:
        raise TargetNotCheckpointable(str(ref), "no container of it runs")
    raise PodNotFound(str(ref))


def _matches(wanted: PodRef, pod: PodRef) -> bool:
    pairs = ((wanted.uid, pod.uid), (wanted.namespace, pod.namespace), (wanted.name, pod.name))
    return all(given in ("", actual) for given, actual in pairs)


def _by_pod(found: Iterable[Record]) -> list[list[Record]]:
    """Containers by pod. A pod has one UID, whatever its sandboxes, in one runtime."""
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in found:
        identity = record.identity
        where = instance(identity.runtime, record.bundle)
        groups[identity.runtime, where, identity.pod].append(record)
    return list(groups.values())


def _pod(group: list[Record]) -> FoundPod | None:
    """The pod as its newest sandbox has it; None when nothing of it is alive."""
    alive = [record for record in group if record.is_alive()]
    if not alive:
        return None
    sandbox_id = _newest_sandbox(alive)
    newest: dict[str, PodContainer] = {}
    for record in sorted(alive, key=lambda record: record.created):
        if record.identity.sandbox_id == sandbox_id and not record.is_sandbox:
            container = _container(record)
            if container.status in ("running", "paused"):
                newest[container.name] = container
    containers = tuple(newest[name] for name in sorted(newest))
    mounts = (bundle_facts(each.bundle).mounts for each in containers)
    ref = alive[0].identity.pod
    return FoundPod(
        ref=ref,
        runtime=alive[0].identity.runtime,
        sandbox_id=sandbox_id,
        containers=containers,
        volumes=volumes(mounts, ref.uid, sandbox_id),
        annotations=_annotations(alive, sandbox_id, containers),
    )


def _annotations(
    alive: list[Record], sandbox_id: str, containers: tuple[PodContainer, ...]
) -> dict[str, str]:
    """What is said of the pod as a whole counts for more than what is said of a container."""
    by_target = {record.target: record.annotations for record in alive}
    found: dict[str, str] = {}
    for container in reversed(containers):
        found |= by_target[container.target]
    for record in alive:
        if record.is_sandbox and record.identity.sandbox_id == sandbox_id:
            found |= record.annotations
    return found


def _newest_sandbox(alive: list[Record]) -> str:
    """By the sandbox's own age; CRI-O often has none (`drop_infra_ctr`): by its containers'."""
    sandboxes = [record for record in alive if record.is_sandbox]
    without = {record.identity.sandbox_id for record in alive}
    without -= {record.identity.sandbox_id for record in sandboxes}
    dated = sandboxes + [record for record in alive if record.identity.sandbox_id in without]
    return max(dated, key=lambda record: record.created).identity.sandbox_id


def _container(record: Record) -> PodContainer:
    return PodContainer(
        name=record.identity.container,
        target=record.target,
        bundle=record.bundle,
        image=record.identity.image,
        status=record.status(),
        checkpoint_name=bundle_facts(record.bundle).checkpoint_name,
    )


def _candidates(found: list[FoundPod]) -> str:
    """UIDs; and where two pods have the same one, as two containerds do, their sandboxes."""
    return ", ".join(sorted(f"{pod.ref.uid} (sandbox {pod.sandbox_id[:13]})" for pod in found))
