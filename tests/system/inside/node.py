"""The machine that the tests run in: its units, its containers, its daemon as clients see it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import find_tools
from agent.messages.model import Action
from agent.pb.checkpoint_agent.v1 import actions_pb2, agent_pb2
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.rpc.channel import Tls, open_channel
from agent.rpc.client import Client
from bench.bundle import COUNTER, memory
from bench.runc import Container, RuncRoot
from tests.fakes.hooked_criu import HookedCriu, hooked_criu

if TYPE_CHECKING:
    # In the stub files only.
    from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentAsyncStub

UNIT = "checkpoint-agent.service"
COMMAND = "/opt/checkpoint-agent/bin/checkpoint-agent"
CONFIG = Path("/etc/checkpoint-agent/config.toml")
SOCKET = Path("/run/checkpoint-agent/agent.sock")
STATE = Path("/var/lib/checkpoint-agent")

# Containers that outlive a test's process but no reboot: a tmpfs, and no `noexec` as on /run.
LAB = RuncRoot(Path("/tmp/lab"))
# On the disk: what a test of a reboot has to find again.
HELD = HookedCriu(Path("/var/lib/held-criu"))

# A drop-in that a reboot forgets.
_DROP_IN = Path(f"/run/systemd/system/{UNIT}.d/test.conf")

# Seconds. Everything is some twenty times slower without KVM.
PATIENCE = 240.0


class Node:
    """The unit checkpoint-agent and its daemon."""

    def start(self) -> None:
        """Start the unit, unless it runs."""
        systemctl("start", UNIT)

    def use_criu(self, criu: HookedCriu | None, **directives: str) -> None:
        """Restart the unit with another CRIU and other directives, or as it was installed."""
        _DROP_IN.unlink(missing_ok=True)
        if criu is not None:
            _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{name}={value}" for name, value in directives.items()]
            environment = f"Environment=CHECKPOINT_AGENT_CRIU={criu.program}"
            _DROP_IN.write_text("\n".join(["[Service]", environment, *lines]) + "\n")
        systemctl("daemon-reload")
        if criu is not None:
            systemctl("restart", UNIT)

    @property
    def pid(self) -> int:
        """The daemon's, 0 while there is none."""
        return int(prop("MainPID"))

    @property
    def restarts(self) -> int:
        """How often systemd has restarted it by itself."""
        return int(prop("NRestarts"))

    async def wait_restarted(self, pid: int) -> None:
        """Wait until systemd has brought up another daemon than this one."""
        async with asyncio.timeout(PATIENCE):
            while self.pid in (0, pid) or prop("ActiveState") != "active":
                await asyncio.sleep(0.5)

    async def begin(self, action_id: str, container: Container) -> None:
        """Have a checkpoint taken; returns when the daemon has taken it on."""
        target = actions_pb2.ContainerRef(id=container.id, runc_root=str(container.runc.path))
        request = actions_pb2.CheckpointRequest(container=target)
        async with open_channel(f"unix:{SOCKET}", Tls()) as channel:
            stub: AgentAsyncStub = AgentStub(channel)
            await stub.Checkpoint(agent_pb2.CheckpointCall(action_id=action_id, request=request))

    async def outcome(self, action_id: str) -> Action:
        """What has become of an action, once it is terminal."""
        address = f"unix:{SOCKET}"
        async with open_channel(address, Tls()) as channel, asyncio.timeout(PATIENCE):
            client = Client(address, AgentStub(channel))
            while not (action := await client.action(action_id)).state.is_terminal:
                await asyncio.sleep(0.2)
            return action


def configure(text: str) -> None:
    """Give the daemon, and the API, these settings."""
    CONFIG.write_text(text)
    systemctl("restart", UNIT)


def systemctl(*words: str) -> str:
    """What `systemctl` says; raises with it when it fails."""
    done = subprocess.run(
        ["systemctl", "--no-pager", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{journal(words[-1])}"
    return done.stdout


def cli(*words: str | Path) -> Any:  # noqa: ANN401 - whatever the JSON holds
    """What the installed command answers, as JSON."""
    done = subprocess.run(
        [COMMAND, *words, "-o", "json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
    return json.loads(done.stdout)


def prop(name: str, unit: str = UNIT) -> str:
    """A property of a unit."""
    return systemctl("show", "--property", name, "--value", unit).strip()


def journal(unit: str = UNIT) -> str:
    """The end of what a unit has said since the machine was started."""
    words = ["journalctl", "--boot", "--unit", unit, "--lines", "40", "--output", "cat"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def counting() -> Container:
    """A container that counts and holds memory."""
    for name in ("root", "bin"):
        (LAB.directory / name).mkdir(parents=True, exist_ok=True)
    criu = LAB.directory / "bin" / "criu"
    if not criu.exists():
        criu.symlink_to(find_tools().criu)
    return LAB.start(LAB.build(COUNTER, memory(8)))


def held_criu() -> HookedCriu:
    """A CRIU that waits, its tasks frozen, at the end of a dump."""
    shutil.rmtree(HELD.directory, ignore_errors=True)
    return hooked_criu(HELD.directory, Path("/opt/checkpoint-agent/criu/bin/criu"), "post-dump")


def operations() -> list[Path]:
    """What the daemon has under way, or has left behind."""
    directory = STATE / "operations"
    return sorted(directory.iterdir()) if directory.exists() else []


def checkpoints() -> list[Path]:
    """Everything in the daemon's store: no half checkpoint either."""
    return sorted((STATE / "checkpoints").glob("*"))


def clear_up() -> None:
    """Remove what tests have started."""
    LAB.clear()
    shutil.rmtree(LAB.directory, ignore_errors=True)
    # What one has left in the store fails no other.
    for left in checkpoints():
        shutil.rmtree(left, ignore_errors=True)
