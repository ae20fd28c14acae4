"""Pods as they were found on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.pods.annotations import Runtime
from agent.targets import PodRef, RuncTarget, Volume


@dataclass(frozen=True, slots=True)
class PodContainer:
    """An application container that runs.

    Attributes:
        name: in its pod; ``target`` has its id.
        status: ``running`` or ``paused``.
        checkpoint_name: CHECKPOINT_NAME in its environment.
    """

    name: str
    target: RuncTarget
    bundle: Path
    image: str
    status: str
    checkpoint_name: str | None


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod of this machine.

    Attributes:
        ref: UID, namespace and name, all three.
        sandbox_id: of its newest sandbox.
        containers: those that run in that sandbox, by name; none while a pod starts or ends.
        volumes: /dev/shm and emptyDir volumes of those containers, each once.
        annotations: those that begin with ``checkpoint-agent/``, of the sandbox and the containers;
            where they differ the sandbox's count, and among containers the first one's by name.
    """

    ref: PodRef
    runtime: Runtime
    sandbox_id: str
    containers: tuple[PodContainer, ...]
    volumes: tuple[Volume, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
