"""runc: what it knows of a container, and how it is told to checkpoint and restore one.

A container's facts are read from runc's own ``state.json``, which costs nothing; `runc state` takes
20 ms and tells less.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import Tools
from agent.errors import BundleInvalid, TargetNotFound
from agent.host import process
from agent.host.cgroup import Freezer, freezer
from agent.host.mounts import detach_below
from agent.host.run import CommandFailed, run
from agent.manifest import Options
from agent.targets import RuncTarget

# What runc itself accepts as an id; also keeps a hostile one from being a path.
_CONTAINER_ID = re.compile(r"[\w+\-.]{1,1024}")

# Levels in a config.json, whose own specification has seven. Python's JSON takes 990, less the
# calls that it is in: what can be read in one place could then not be written in another.
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Container:
    """A container that runc knows."""

    target: RuncTarget
    pid: int
    started: int
    bundle: Path
    freezer: Freezer | None

    @property
    def status(self) -> str:
        """``running``, ``paused`` or ``stopped``, as of now."""
        if not process.is_alive(self.pid, self.started):
            return "stopped"
        return "paused" if self.freezer and self.freezer.is_frozen() else "running"


def is_valid_id(container: str) -> bool:
    """Whether runc would take it as a container's id."""
    return bool(_CONTAINER_ID.fullmatch(container)) and container not in (".", "..")


def exists(target: RuncTarget) -> bool:
    """Whether runc has a container of that id, in whatever state."""
    return is_valid_id(target.container) and (target.root / target.container).exists()


def load(target: RuncTarget) -> Container:
    """What runc knows of a container.

    Raises:
        TargetNotFound: there is none, or nothing of it can be read.
    """
    try:
        if not is_valid_id(target.container):
            raise FileNotFoundError
        state = json.loads((target.root / target.container / "state.json").read_text())
        labels = dict(label.partition("=")[::2] for label in state["config"]["labels"] or ())
        return Container(
            target=target,
            pid=int(state["init_process_pid"]),
            started=int(state["init_process_start"]),
            bundle=Path(labels["bundle"]),
            freezer=freezer(state["cgroup_paths"] or {}),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TargetNotFound("container", target.container, f" under {target.root}") from error


def read_config(bundle: Path) -> dict[str, object]:
    """The bundle's config.json.

    Raises:
        BundleInvalid: it cannot be read, or is no OCI configuration.
    """
    try:
        data = (bundle / "config.json").read_bytes()
    except OSError as error:
        raise BundleInvalid(str(bundle), f"config.json: {error.strerror}") from error
    return parse_config(data, bundle)


def parse_config(data: bytes, bundle: Path) -> dict[str, object]:
    """What a bundle's config.json holds.

    Raises:
        BundleInvalid: it is no OCI configuration.
    """
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleInvalid(str(bundle), "config.json is not JSON") from error
    if not isinstance(config, dict) or not isinstance(config.get("root"), dict):
        raise BundleInvalid(str(bundle), "config.json has no root filesystem")
    if not _is_shallow(config):
        raise BundleInvalid(str(bundle), f"config.json is nested more than {_DEEPEST} deep")
    return config


def _is_shallow(config: dict[str, Any]) -> bool:
    level: list[dict[str, Any] | list[Any]] = [config]
    for _ in range(_DEEPEST):
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for some in inner for each in some if isinstance(each, dict | list)]
        if not level:
            return True
    return False


def has_terminal(config: dict[str, object]) -> bool:
    """Whether the first process of a container has a terminal."""
    first = config.get("process")
    return isinstance(first, dict) and bool(first.get("terminal"))


def command(tools: Tools, root: Path, *, log: Path) -> list[str]:
    """The beginning of a command line of runc, which writes its errors to ``log``."""
    return [str(tools.require_runc()), "--root", str(root), "--log", str(log)]


def cgroup_arguments(config: dict[str, object]) -> list[str]:
    """Global options that have a container's cgroup made by who made it the first time.

    runc reads a path of the form `slice:prefix:name` as systemd's only when it is told so, and as
    the name of a directory otherwise.
    """
    linux = config.get("linux")
    path = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    return ["--systemd-cgroup"] if isinstance(path, str) and path.count(":") == 2 else []


async def delete(tools: Tools, target: RuncTarget) -> None:
    """Kill a container, if it still runs, and make runc forget it. One that is gone is no error.

    Raises:
        CommandFailed: runc was not called, as it would have deleted more than the container.
        MissingTool: there is none.
    """
    program = tools.require_runc()
    # A killed `runc restore` leaves the root filesystem bind-mounted in its state directory, and
    # `runc delete` removes whatever it finds below that.
    state = target.root / target.container
    if not detach_below(state):
        raise CommandFailed("umount", "mounts left", f"cannot unmount what is below {state}")
    words = [str(program), "--root", str(target.root), "delete", "--force", target.container]
    await run(words, check=False)


def checkpoint_arguments(options: Options, *, leave_running: bool) -> list[str]:
    """Options of `runc checkpoint`, without paths and id."""
    return _common_arguments(options) + (["--leave-running"] if leave_running else [])


def restore_arguments(options: Options) -> list[str]:
    """Options of `runc restore`, without paths and id."""
    return [*_common_arguments(options), "--detach"]


def _common_arguments(options: Options) -> list[str]:
    words = ["--manage-cgroups-mode", options.manage_cgroups_mode]
    flags = {
        "--tcp-established": options.tcp_established,
        "--ext-unix-sk": options.ext_unix_sk,
        "--shell-job": options.shell_job,
        "--file-locks": options.file_locks,
    }
    return words + [flag for flag, wanted in flags.items() if wanted]


def complaint(log: Path) -> str:
    """The last error in runc's own log (`--log`), in its words; "" when there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if "level=error" in line or "level=fatal" in line]
    if not errors:
        return ""
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', errors[-1])
    return found.group(1).replace('\\"', '"') if found else errors[-1]


def says_taken(log: Path) -> bool:
    """Whether the last error in runc's own log is that there is a container of that id."""
    return "ID already exists" in complaint(log)
