"""GNU tar, for directories with everything that a container can put into them."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.errors import MissingTool


def require() -> None:
    """Raises MissingTool when there is no tar."""
    if shutil.which("tar") is None:
        raise MissingTool(tool="tar", reason="not found")


def create(directory: Path) -> list[str]:
    """The command that writes what is in ``directory`` to its standard output.

    Owners by number, ACLs, all extended attributes (an overlay's opaque directories are
    ``trusted.``), devices (its whiteouts are 0/0), holes as holes. Sockets are left out, as nobody
    listens on a file that was unpacked. Other file systems mounted below are not entered.
    """
    return [
        *("tar", "--create", "--sparse", "--xattrs", "--xattrs-include=*", "--acls"),
        *("--numeric-owner", "--one-file-system", "-C", str(directory), "."),
    ]


def complaint(log: Path) -> str:
    """The last line of what it said, which tells the error; "" when it said nothing.

    Its last line of all only says that there were errors before.
    """
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    told = [line for line in lines if "Exiting with failure" not in line and "socket" not in line]
    return told[-1] if told else ""
