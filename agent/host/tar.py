"""GNU tar, for directories with everything that a container can put into them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agent.errors import MissingTool
from agent.host import confined

# Of a log, from its end: a line for each of millions of files need not be held.
_MAX_LOG = 64 << 10

# What the tar of a tree has, and is not the tree's. Handles and the identity of the file system
# that a layer lay on: an overlay with an index refuses to be mounted with another one's. SELinux
# labels: they name one container, and another could not read its own files.
_NOT_ITS_OWN = ("trusted.overlay.origin", "trusted.overlay.uuid", "security.selinux")


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


def extract(directory: Path) -> list[str]:
    """The command that puts back into ``directory`` what :func:`create` wrote, from standard input.

    The tar may be anybody's: this one cannot reach anything but ``directory``, whatever the names
    and links in there say, and whatever is in there already (:mod:`agent.host.confined`). It runs
    to its end without a word, or something could not be put back: a lost attribute alone would
    only be a warning, and bring files back that a layer has deleted.

    Raises:
        MissingTool: there is no tar.
    """
    program = shutil.which("tar")
    if program is None:
        raise MissingTool(tool="tar", reason="not found")
    return confined.command(
        str(directory), program, "--extract", "--file=-", "-C", confined.INSIDE,
        *("--same-permissions", "--same-owner", "--numeric-owner"),
        # Access lists among them. With --acls it would give one to every file that has none.
        *("--xattrs", "--xattrs-include=*", *(f"--xattrs-exclude={one}" for one in _NOT_ITS_OWN)),
        # Clocks of two machines differ.
        "--warning=no-timestamp",
    )  # fmt: skip


def complaint(log: Path) -> str:
    """The last line of what it said, which tells the error; "" when it said nothing.

    Its last line of all only says that there were errors before.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_LOG))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    told = [
        line
        for line in lines
        if "Exiting with failure" not in line and not line.endswith(": socket ignored")
    ]
    if told and ": Wrote only " in told[-1]:
        return f"{told[-1]}: no space left"
    return told[-1] if told else ""
