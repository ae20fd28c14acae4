"""A node whose pods come back from checkpoints: containerd, `checkpoint-runc`, and a daemon.

with restore_handler(directory) as handler, restore_node(handler, directory) as node:
    node.daemon.start()
    pod = node.run("web", [ContainerSpec("app")])
    path = node.checkpoint(pod)
    again = node.run("web-2", [asking("app", path)])
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.host.checkpoint_runc import install_wrapper
from tests.cli_process import CLI
from tests.daemons import Daemon, Tables, daemon_in
from tests.servers.containerd import ContainerdServer, containerd_server
from tests.servers.cri_pods import ContainerSpec, Pod

HANDLER = "checkpoint-runc"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Handler:
    """A containerd that knows `checkpoint-runc`, which may be another one for each test."""

    server: ContainerdServer
    wrapper: Path


@contextmanager
def restore_handler(directory: Path) -> Iterator[Handler]:
    """Start one; nothing of it is left afterwards. ``directory`` gets the wrapper."""
    wrapper = directory / HANDLER
    with containerd_server(handlers={HANDLER: wrapper}) as server:
        yield Handler(server, wrapper)


def asking(name: str, checkpoint: str, **more: Any) -> ContainerSpec:  # noqa: ANN401
    """A container whose environment asks for a checkpoint, by its path or its name."""
    spec = ContainerSpec(name, **more)
    return replace(spec, env={**spec.env, "CHECKPOINT_RESTORE": checkpoint})


@dataclass(frozen=True, slots=True)
class RestoreNode:
    """One daemon for such a containerd."""

    handler: Handler
    daemon: Daemon

    def run(
        self,
        name: str,
        containers: Sequence[ContainerSpec],
        namespace: str = "default",
        uid: str | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Pod:
        """Make a pod by way of `checkpoint-runc`."""
        return self.handler.server.run_pod(
            name, namespace, uid, containers=containers, handler=HANDLER, annotations=annotations
        )

    def checkpoint(self, pod: Pod, *options: str) -> str:
        """Checkpoint a pod with its files; the path of that."""
        words = ["checkpoint", "--agent", f"unix:{self.daemon.socket}", "--pod", pod.uid]
        done = subprocess.run(
            [*CLI, *words, "--kind", "rootfs", "-o", "json", *options],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        path: str = json.loads(done.stdout)["path"]
        return path

    def record(self, pod: Pod, container: str) -> Json:
        """What is written down of a container that asked for a checkpoint."""
        found: Json = json.loads((self.records(pod) / f"{container}.json").read_text())
        return found

    def records(self, pod: Pod) -> Path:
        """Where that is for a pod."""
        return self.daemon.directory / "restores" / pod.sandbox_id

    def operations(self) -> list[str]:
        """Operations that have left something behind or are under way."""
        directory = self.daemon.state_dir / "operations"
        return sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []


@contextmanager
def restore_node(
    handler: Handler,
    directory: Path,
    tables: Tables | None = None,
    env: Mapping[str, str] | None = None,
    *,
    patience: float = 0.3,
) -> Iterator[RestoreNode]:
    """A daemon that has not been started yet, for pods that are gone when the block is left.

    Args:
        directory: an existing one; short, for the sockets in it.
        patience: seconds that `checkpoint-runc` waits for a daemon.
    """
    roots: Tables = {"pods": {"runc_roots": [str(handler.server.runc_root)]}}
    for name, keys in (tables or {}).items():
        roots.setdefault(name, {}).update(keys)
    socket = directory / "restore.sock"
    install_wrapper(handler.wrapper, socket=socket, patience=patience)
    with daemon_in(directory, roots, env) as daemon:
        try:
            yield RestoreNode(handler, daemon)
        finally:
            handler.server.remove_pods()
