"""What was decided for each pod's sandbox, and what became of its containers.

    <restores>/policy                        for agent/host/wrapper/records.py, as the next two are
    <restores>/<sandbox>/<container>.json    of each container that asked for a checkpoint
    <restores>/<sandbox>/_pod.json           which one the pod gets; no container is called so

In /run: it is about containers that run, and those are gone after a restart of the machine. An
agent that was restarted goes on from there. That a pod has begun outlives its sandbox (begun.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from agent.host import runc
from agent.host.wrapper.attempt import MARKER
from agent.runtime.begun import Begin, Begun
from agent.targets import PodRef, RuncTarget

_POD: Final = "_pod.json"

# A namespace of ids, for pods that ask for a checkpoint without an action.
_ACTIONS: Final = uuid.UUID("6f6c1d3e-0a35-4d1c-9f54-7a7a3f4c2b10")

# Seconds after which a sandbox of which nothing is left is forgotten. CRI-O often has no container
# for the sandbox itself, and one that crashes again and again has none for up to five minutes.
_FORGET: Final = 3600.0

State = Literal["restoring", "restored", "cold", "failed"]


class _Stored(BaseModel):
    # Of another version, perhaps.
    model_config = ConfigDict(extra="ignore")


M = TypeVar("M", bound=_Stored)


class Container(_Stored):
    """What became of one, by its name in the pod. ``reason`` says why it was not restored.

    ``uid`` is its pod's, where there was no agent to write that down; ``again`` whether it has been
    restarted since, which is cold: nothing of the checkpoint runs in it any more.
    """

    state: State
    container_id: str
    uid: str = ""
    reason: str = ""
    root: str = ""
    path: str = ""
    pid: int = 0
    at: float = 0.0
    again: bool = False
    # Keys of the pod's volumes that it puts back while it is restored.
    volumes: set[str] = set()


class Decision(_Stored):
    """What a pod gets: the checkpoint at ``path``, or none, and why."""

    uid: str = ""
    namespace: str = ""
    name: str = ""
    # The kubelet's for this pod, "" where it is not known.
    directory: str = ""
    path: str | None = None
    cold: str | None = None
    # As its annotation has it; nothing in it has been checked.
    action_id: str | None = None
    # By medium and name: those that are what they were at the checkpoint.
    volumes: set[str] = set()


@dataclass(slots=True)
class Sandbox:
    """One pod's.

    Attributes:
        lock: held by whoever works on it, so one container comes after the other.
        told: whether others have been told that it begins, or will not.
        born: when this agent first knew of it.
    """

    directory: Path
    decision: Decision
    begun: Begun
    containers: dict[str, Container] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    told: bool = False
    born: float = field(default_factory=time.time)

    @property
    def pod(self) -> PodRef:
        """Whose it is."""
        return PodRef(self.decision.uid, self.decision.namespace, self.decision.name)

    @property
    def action_id(self) -> str:
        """What its restore is reported as: what was asked for, else an id that is always the same
        for this sandbox.
        """
        return self.decision.action_id or str(uuid.uuid5(_ACTIONS, self.directory.name))

    @property
    def has_restored(self) -> bool:
        """Whether any of its containers came back."""
        return any(each.state == "restored" for each in self.containers.values())

    @property
    def runs_restored(self) -> bool:
        """Whether any of them still runs as it came back."""
        restored = (each for each in self.containers.values() if each.state == "restored")
        return not all(each.again for each in restored)

    def began_before(self) -> Begin | None:
        """When the pod has begun in an earlier sandbox, unless it has in this one. Blocks."""
        if self._has_begun():
            return None
        found = self.begun.of(self.decision.uid)
        return found if found and found.sandbox != self.directory.name else None

    def remember(self) -> None:
        """Write down, durably, that the pod has begun, if it has. Blocks. Raises OSError."""
        if self._has_begun():
            at = max((each.at for each in self.containers.values()), default=time.time())
            begin = Begin(sandbox=self.directory.name, at=at, directory=self.decision.directory)
            self.begun.note(self.decision.uid, begin)

    def _has_begun(self) -> bool:
        return self.has_restored or self.decision.cold is not None

    def note(self, name: str, container: Container) -> None:
        """Write down what became of a container. Blocks. Raises OSError."""
        self.containers[name] = container.model_copy(update={"at": time.time()})
        try:
            self.remember()
        finally:
            self._write(f"{name}.json", self.containers[name])

    def keep(self) -> None:
        """Write down what was decided. Blocks. Raises OSError."""
        try:
            self.remember()
        finally:
            self._write(_POD, self.decision)

    def catch_up(self) -> None:
        """Learn what a `checkpoint-runc` has decided by itself. Blocks.

        One that finds no agent starts its container cold, and so will all of the pod; also one that
        does not understand its agent, or hears nothing of it. It knows no path: who has one was not
        in the checkpoint, and is no reason for the others.
        """
        for name, container in _containers(self.directory).items():
            known = self.containers.get(name)
            if known and known.state == "restored":
                known.again |= container.again
            elif container.state == "cold":
                self._catch_up_with(name, container)

    def _catch_up_with(self, name: str, cold: Container) -> None:
        self.containers[name] = cold
        if not cold.path and not self.runs_restored:
            self.decision.cold = self.decision.cold or cold.reason

    def _write(self, name: str, content: BaseModel) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(self.directory / name, content.model_dump_json())


class Sandboxes:
    """All of this node."""

    def __init__(self, directory: Path, policy: str, begun: Begun) -> None:
        self._directory, self._policy, self._begun = directory, policy, begun
        self._known: dict[str, Sandbox] = {}

    def load(self) -> None:
        """Read what earlier agents have decided. Blocks. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(self._directory / "policy", self._policy)
        for path in self._directory.iterdir():
            if path.is_dir():
                self._known[path.name] = _read(path, self._begun)

    def known(self) -> Iterable[Sandbox]:
        """All of them, as of now."""
        return list(self._known.values())

    def of(self, sandbox_id: str, pod: PodRef, directory: str = "") -> Sandbox:
        """A pod's; a new one when nothing is known of it. Blocks.

        Args:
            directory: the kubelet's for this pod, "" where it is not known.
        """
        found = self._known.get(sandbox_id)
        if found is None:
            made = _read(self._directory / sandbox_id, self._begun)
            found = self._known.setdefault(sandbox_id, made)
        decision = found.decision
        if not decision.name:
            decision.uid, decision.namespace, decision.name = pod.uid, pod.namespace, pod.name
        decision.directory = decision.directory or directory
        return found

    def prune(self, root: Path) -> None:
        """Forget those of which runc has nothing any more below ``root``. Blocks."""
        for sandbox_id, sandbox in list(self._known.items()):
            if sandbox.lock.locked() or _age(sandbox) < _FORGET:
                continue
            ids = [sandbox_id, *(each.container_id for each in sandbox.containers.values())]
            roots = {root, *(Path(each.root) for each in sandbox.containers.values() if each.root)}
            if not any(runc.exists(RuncTarget(one, each)) for one in ids for each in roots):
                # Another thread may have done the same.
                self._known.pop(sandbox_id, None)
                shutil.rmtree(sandbox.directory, ignore_errors=True)


def _age(sandbox: Sandbox) -> float:
    # One of which nothing is written down yet is about to be worked on.
    times = (each.at for each in sandbox.containers.values())
    return time.time() - max(times, default=sandbox.born)


def _replace(path: Path, text: str) -> None:
    """Write a file so that nobody reads half of it."""
    new = path.with_name(f".{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.rename(path)


def _read(directory: Path, begun: Begun) -> Sandbox:
    decision = _parsed(directory / _POD, Decision) or Decision()
    sandbox = Sandbox(directory, decision, begun)
    for name, container in _containers(directory).items():
        sandbox.containers[name] = settled = _settled(container)
        if settled.state == "restored":
            decision.volumes |= settled.volumes
            # For a `checkpoint-runc` that finds no agent: a restart is never refused.
            if settled is not container:
                with contextlib.suppress(OSError):
                    sandbox.note(name, settled)
        decision.uid = decision.uid or container.uid
    sandbox.catch_up()
    # What an agent was killed before it could write down, or a `checkpoint-runc` decided meanwhile.
    with contextlib.suppress(OSError):
        sandbox.remember()
    return sandbox


def _containers(directory: Path) -> dict[str, Container]:
    """What is written down of each, by its name."""
    found = {path.stem: _parsed(path, Container) for path in directory.glob("[!._]*.json")}
    return {name: container for name, container in found.items() if container is not None}


def _settled(container: Container) -> Container:
    """A restore that was under way when its agent died has come to an end since."""
    if container.state != "restoring":
        return container
    done = (Path(container.root) / container.container_id / MARKER).exists()
    state: State = "restored" if done else "failed"
    return container.model_copy(update={"state": state})


def _parsed(path: Path, model: type[M]) -> M | None:
    try:
        return model.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
