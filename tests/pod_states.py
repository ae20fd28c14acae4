"""Writes what runc, crun, containerd and CRI-O write for containers of pods, as they document it.

Their processes are real: a container that runs is this test's own process, by its true start time.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from agent.host import process

Json = dict[str, object]

UID = "0a1b2c3d-1111-4222-8333-444455556666"


class Extra(TypedDict, total=False):
    """What else may be said of a container: of its config.json, and where its cgroup is."""

    env: list[str]
    mounts: list[Json]
    cgroup: str


@dataclass(slots=True)
class Node:
    """A machine's directories, below one of the test's."""

    directory: Path
    clock: int = 0
    state: str = "containerd"
    runc_root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.runc_root = self.directory / "run/containerd/runc/k8s.io"
        self.runc_root.mkdir(parents=True)

    def containerd(
        self,
        pod: str = "web",
        name: str | None = "app",
        *,
        namespace: str = "default",
        uid: str = UID,
        sandbox: str = "5a",
        alive: bool = True,
        with_uid: bool = True,
        annotations: dict[str, str] | None = None,
        **extra: Unpack[Extra],
    ) -> str:
        """A container as containerd writes it, or with no name a sandbox; its id."""
        container = sandbox if name is None else new_id()
        prefix = "io.kubernetes.cri."
        written = {
            f"{prefix}container-type": "sandbox" if name is None else "container",
            f"{prefix}sandbox-id": sandbox,
            f"{prefix}sandbox-name": pod,
            f"{prefix}sandbox-namespace": namespace,
        }
        if with_uid:
            written[f"{prefix}sandbox-uid"] = uid
        if name is None:
            written[f"{prefix}sandbox-log-directory"] = f"/var/log/pods/{namespace}_{pod}_{uid}"
        else:
            written |= {f"{prefix}container-name": name, f"{prefix}image-name": "docker.io/a:1"}
        written |= annotations or {}
        where = f"run/{self.state}/io.containerd.runtime.v2.task/k8s.io"
        bundle = self.directory / where / container
        self.write(self.runc_root, container, written, bundle, uid=uid, alive=alive, **extra)
        return container

    def crio(
        self,
        pod: str = "web",
        name: str | None = "app",
        *,
        namespace: str = "default",
        uid: str = UID,
        sandbox: str = "5a",
        alive: bool = True,
        flat: bool = True,
        annotations: dict[str, str] | None = None,
        runtime: Literal["runc", "crun"] = "runc",
        **extra: Unpack[Extra],
    ) -> str:
        """A container as CRI-O writes it, or with no name a sandbox; its id."""
        container = sandbox if name is None else new_id()
        labels = {
            "io.kubernetes.pod.name": pod,
            "io.kubernetes.pod.namespace": namespace,
            "io.kubernetes.pod.uid": uid,
            "io.kubernetes.container.name": name or "POD",
        }
        prefix = "io.kubernetes.cri-o."
        written = {
            f"{prefix}ContainerType": "sandbox" if name is None else "container",
            f"{prefix}ContainerID": container,
            f"{prefix}SandboxID": sandbox,
            f"{prefix}ImageName": "quay.io/a:1",
            f"{prefix}Labels": json.dumps(labels),
            "io.container.manager": "cri-o",
            **(labels if flat else {}),
            **(annotations or {}),
        }
        storage = "run/containers/storage/overlay-containers"
        bundle = self.directory / storage / container / "userdata"
        root = self.directory / "run" / runtime
        if runtime == "crun":
            self._bundle(bundle, written, **extra)
            (root / container).mkdir(parents=True)
            status = {"pid": os.getpid(), "bundle": str(bundle), "cgroup-path": f"/pod{uid}/x"}
            (root / container / "status").write_text(json.dumps(status))
        else:
            self.write(root, container, written, bundle, uid=uid, alive=alive, **extra)
        return container

    @property
    def crio_root(self) -> Path:
        """CRI-O's root for runc."""
        return self.directory / "run/runc"

    def write(
        self,
        root: Path,
        container: str,
        annotations: dict[str, str],
        bundle: Path,
        *,
        uid: str = UID,
        alive: bool = True,
        **extra: Unpack[Extra],
    ) -> None:
        """A container's state.json and config.json."""
        self._bundle(bundle, annotations, **extra)
        me = process.stat(os.getpid())
        assert me is not None
        self.clock += 1
        cgroup = extra.get("cgroup", "kubepods/burstable")
        state = {
            "id": container,
            "init_process_pid": os.getpid(),
            # A process that had this pid before, long ago.
            "init_process_start": me.started if alive else me.started - 100_000,
            "created": f"2026-03-04T05:06:{self.clock:02}.123456789Z",
            "cgroup_paths": {"": f"/nonexistent/{cgroup}/pod{uid}/{container}"},
            "namespace_paths": {"NEWNET": f"/proc/{os.getpid()}/ns/net"},
            "external_descriptors": ["/dev/null", "pipe:[1]", "pipe:[2]"],
            "rootless": False,
            "config": {
                "rootfs": f"{bundle}/rootfs",
                "labels": [*(f"{key}={value}" for key, value in annotations.items()),
                           f"bundle={bundle}"],
            },
        }  # fmt: skip
        (root / container).mkdir(parents=True)
        (root / container / "state.json").write_text(json.dumps(state))

    def _bundle(self, bundle: Path, annotations: dict[str, str], **extra: Unpack[Extra]) -> None:
        bundle.mkdir(parents=True)
        config = {
            "process": {"args": ["/bin/app"], "env": extra.get("env", ["PATH=/bin"])},
            "root": {"path": "rootfs"},
            "mounts": extra.get("mounts", []),
            "annotations": annotations,
        }
        (bundle / "config.json").write_text(json.dumps(config))


def new_id() -> str:
    """An id as containerd and CRI-O make them."""
    return secrets.token_hex(32)


def bind(destination: str, source: str) -> Json:
    """A mount as a runtime asks for it."""
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}
