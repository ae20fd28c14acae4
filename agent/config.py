"""Where things are and how big they may get. Every default carries its reason."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.errors import MissingTool

MIB = 1 << 20

# Locks, journals and CRIU's working files of operations under way. On disk, not in /run: where
# streaming cannot be used, CRIU's images land here for a while, and memory is what is scarce then.
DEFAULT_STATE_DIR = Path("/var/lib/checkpoint-agent")

DEFAULT_RUNC_ROOT = Path("/run/runc")

# Set up by `make setup` beside the package: a CRIU that runs on any distribution.
BUNDLED_CRIU = Path(__file__).resolve().parent.parent / ".tools" / "criu" / "bin" / "criu"


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs the agent stands on. Processes that are in no container need no runc."""

    criu: Path
    runc: Path | None

    def require_runc(self) -> Path:
        """runc, for what does not go without.

        Raises:
            MissingTool: it is nowhere.
        """
        if self.runc is None:
            raise _missing("runc", wanted_runc())
        return self.runc


def find_tools() -> Tools:
    """CRIU and runc: from the environment, the project's own bundle, or PATH, in this order.

    Raises:
        MissingTool: CRIU is nowhere.
    """
    bundled = str(BUNDLED_CRIU) if os.access(BUNDLED_CRIU, os.X_OK) else None
    wanted = os.environ.get("CHECKPOINT_AGENT_CRIU") or bundled or "criu"
    criu = _find(wanted)
    if criu is None:
        raise _missing("criu", wanted)
    return Tools(criu=criu, runc=_find(wanted_runc()))


def wanted_runc() -> str:
    """The runc that is looked for: a name, or where it should be."""
    return os.environ.get("CHECKPOINT_AGENT_RUNC") or "runc"


def _find(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found).absolute() if found else None


def _missing(name: str, program: str) -> MissingTool:
    return MissingTool(tool=name, reason=f"{program} is not there or not executable")


def cuda_libraries() -> Path | None:
    """Where NVIDIA's driver has its libraries, if the loader does not find them by itself: a driver
    that came in a container (``CHECKPOINT_AGENT_CUDA_LIBRARIES``).
    """
    given = os.environ.get("CHECKPOINT_AGENT_CUDA_LIBRARIES")
    return Path(given) if given else None


def state_dir() -> Path:
    """The agent's own directory on this machine (``CHECKPOINT_AGENT_STATE_DIR``)."""
    return Path(os.environ.get("CHECKPOINT_AGENT_STATE_DIR") or DEFAULT_STATE_DIR)
