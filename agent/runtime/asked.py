"""What a container asks for: by its environment, or by annotations of its pod."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import InvalidArgument
from agent.host import kubelet, network
from agent.host.runc import has_terminal, read_config
from agent.messages.requests import check_action_id
from agent.pods.annotations import PREFIX, Identity, identify
from agent.pods.bundle import Mount, bundle_facts
from agent.pods.volumes import volumes
from agent.targets import Volume

_ENVIRONMENT: Final = "CHECKPOINT_RESTORE="
_RESTORE: Final = f"{PREFIX}restore"
_ACTION: Final = f"{PREFIX}restore-action"

_LONGEST_NAME: Final = 64  # of a host, in the kernel

# The namespaces of its pod that a container shares and CRIU would make anew, by CRIU's names. The
# network is runc's own business.
_JOINED: Final = ("ipc", "uts")


@dataclass(frozen=True, slots=True)
class Asked:
    """A container of a pod, and what it asks for.

    Attributes:
        wanted: a checkpoint's path, or the name of some; None when nothing is asked for.
        action_id: of the action that made the pod, if one did.
        volumes: of its pod, as far as it has them mounted.
        directory: the kubelet's for its pod, "" where nothing of that is mounted.
        network: its pod's network namespace, None where it is the machine's.
        namespaces: paths of those that it shares with its pod, by their names; not the machine's.
        hostname: its pod's, None where the engine gives it none.
    """

    identity: Identity
    wanted: str | None
    action_id: str | None
    volumes: tuple[Volume, ...]
    directory: str
    network: Path | None
    namespaces: tuple[tuple[str, str], ...]
    hostname: str | None
    terminal: bool


def asked_of(bundle: Path) -> Asked | None:
    """What the bundle's config.json says; None when it is no container of a pod.

    Raises:
        BundleInvalid: it cannot be read.
    """
    config = read_config(bundle)
    facts = bundle_facts(bundle)
    annotations = dict(facts.annotations)
    linux = _object(config.get("linux"))
    cgroup = str(linux.get("cgroupsPath", ""))
    # With systemd's driver it is `SLICE:PREFIX:ID`.
    identity = identify(annotations, [cgroup.replace(":", "/")])
    if identity is None or not identity.container:
        return None
    return Asked(
        identity=identity,
        wanted=_variable(config) or annotations.get(_RESTORE) or None,
        action_id=_action(annotations),
        volumes=volumes([facts.mounts], identity.pod.uid, identity.sandbox_id),
        directory=_directory(facts.mounts, identity.pod.uid),
        network=_network(config),
        namespaces=tuple(_namespaces(linux)),
        hostname=_hostname(facts.mounts),
        terminal=has_terminal(config),
    )


def _variable(config: dict[str, object]) -> str | None:
    """Of several the last one counts, as in Kubernetes."""
    env = _object(config.get("process")).get("env")
    words = [word for word in env if isinstance(word, str)] if isinstance(env, list) else []
    found = [word.removeprefix(_ENVIRONMENT) for word in words if word.startswith(_ENVIRONMENT)]
    return found[-1] if found and found[-1] else None


def _action(annotations: dict[str, str]) -> str | None:
    """What is no id was not written by the API, and nobody waits for it."""
    try:
        return check_action_id(annotations.get(_ACTION, ""))
    except InvalidArgument:
        return None


def _namespaces(linux: dict[str, Any]) -> list[tuple[str, str]]:
    listed = linux.get("namespaces")
    found = [_object(each) for each in listed] if isinstance(listed, list) else []
    paths = {str(each.get("type")): str(each.get("path") or "") for each in found}
    own = [(kind, paths[kind]) for kind in _JOINED if paths.get(kind, "").startswith("/")]
    return [(kind, path) for kind, path in own if not _is_of_machine(kind, path)]


def _network(config: dict[str, object]) -> Path | None:
    path = network.joined(config)
    return None if path is None or _is_of_machine("net", str(path)) else path


def _is_of_machine(kind: str, path: str) -> bool:
    """Whether the pod has it from its machine, whose name a restore would then change.

    The machine's are those of its first process, which an agent in a container can look at only if
    that has all rights; and of an agent that is in none.
    """
    try:
        found = os.stat(path)
    except OSError:
        return True
    for process in ("1", "self"):
        with contextlib.suppress(OSError):
            if os.path.samestat(found, os.stat(f"/proc/{process}/ns/{kind}")):
                return True
    return False


def _directory(mounts: tuple[Mount, ...], uid: str) -> str:
    found = (kubelet.pod_directory(str(mount.source), uid) for mount in mounts)
    return next((path for path in found if path), "")


def _hostname(mounts: tuple[Mount, ...]) -> str | None:
    """Both engines have it in a file that they mount, unless the pod's author mounts another there.

    That may be anything that can lie in a volume: a FIFO would keep whoever opens it for ever.
    """
    files = [mount.source for mount in mounts if mount.destination == "/etc/hostname"]
    try:
        with open(files[-1], "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            name = file.read(_LONGEST_NAME + 2).decode().strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return name if len(name) <= _LONGEST_NAME and name.isprintable() and name else None


def _without_waiting(path: str, flags: int) -> int:
    # Not opened beforehand: open() refuses a directory, and leaves another's descriptor open.
    return os.open(path, flags | os.O_NONBLOCK)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
