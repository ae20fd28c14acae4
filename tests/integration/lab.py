"""A place for one test's checkpoints: a runc root, a store, the agent's state directory, tools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.checkpoint import CheckpointRequest, MemberRequest, checkpoint
from agent.compress import parse_compression
from agent.config import Tools, find_tools
from agent.manifest import Options
from agent.report import CheckpointResult, RestoreResult
from agent.restore import RestoreRequest, restore
from agent.store.base import Store
from agent.store.file import FileStore
from agent.targets import ProcessTarget, RuncTarget
from bench.leftovers import unmount_below
from bench.runc import Container, RuncRoot
from tests.fakes.hooked_criu import Action, HookedCriu, hooked_criu


@dataclass(frozen=True, slots=True)
class Lab:
    """Everything around a checkpoint, below one directory."""

    runc: RuncRoot
    directory: Path
    tools: Tools
    store: Store
    hooked: list[HookedCriu] = field(default_factory=list)

    @property
    def state_dir(self) -> Path:
        """The agent's own directory."""
        return self.directory / "state"

    def with_store(self, store: Store) -> Lab:
        """The same with another store."""
        return replace(self, store=store)

    def hook(self, hook: str, action: Action = "hold") -> tuple[HookedCriu, Lab]:
        """A CRIU that does ``action`` at ``hook``, and the same lab with it."""
        directory = self.directory / f"criu-{len(self.hooked)}"
        criu = hooked_criu(directory, self.tools.criu, hook, action)
        self.hooked.append(criu)
        return criu, replace(self, tools=replace(self.tools, criu=criu.program))

    async def checkpoint(
        self,
        target: Container | int,
        *,
        streams: int = 4,
        codec: str = "zstd",
        stop: bool = False,
        options: Options | None = None,
    ) -> CheckpointResult:
        """Checkpoint a container, or a process tree by its pid."""
        request = CheckpointRequest(
            members=(MemberRequest(target_of(target)),),
            store=self.store,
            streams=streams,
            compression=parse_compression(codec),
            stop=stop,
            options=options or Options(),
        )
        return await checkpoint(request, tools=self.tools, state_dir=self.state_dir)

    async def restore(
        self,
        checkpoint_id: str,
        *,
        container: str | None = None,
        bundle: Path | None = None,
        options: Options | None = None,
    ) -> RestoreResult:
        """Restore, under the id and from the bundle that it had unless told otherwise."""
        request = RestoreRequest(self.store, checkpoint_id, container, bundle, options=options)
        return await restore(request, tools=self.tools, state_dir=self.state_dir)

    def operations(self) -> list[str]:
        """Operations that have left something behind or are under way."""
        directory = self.state_dir / "operations"
        return sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []

    def stored(self) -> list[str]:
        """Every object in the store."""
        return [found.path for found in self.store.list("")]


def target_of(target: Container | int) -> RuncTarget | ProcessTarget:
    """What the agent calls it."""
    if isinstance(target, int):
        return ProcessTarget(target)
    return RuncTarget(target.id, target.runc.path)


@contextmanager
def lab_in(runc: RuncRoot, directory: Path) -> Iterator[Lab]:
    """A lab in an empty directory; whatever CRIU still waits in it is let go at the end."""
    made = Lab(runc, directory, find_tools(), FileStore(directory / "store"))
    try:
        yield made
    finally:
        for criu in made.hooked:
            criu.release()
        # Before anybody removes the directory: CRIU's may be mounts of the machine's cgroups.
        unmount_below(directory)


@pytest.fixture
def lab(runc: RuncRoot, tmp_path: Path) -> Iterator[Lab]:
    """A lab whose containers, processes and files do not outlive the test."""
    with lab_in(runc, tmp_path) as made:
        yield made
