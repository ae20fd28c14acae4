"""What ``checkpoint`` and ``restore`` can be told, beside the options all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.targets import Kind
from agent.tcp import Policy

# Heading in `--help` for what goes through to CRIU and must be the same again at restore.
_TOLD = "What CRIU has to be told"

Container = Annotated[
    str | None, typer.Argument(metavar="CONTAINER", help="Id of a container, as in `runc list`.")
]
Pid = Annotated[
    int | None,
    typer.Option("--pid", metavar="PID", min=1, help="A process and its children instead."),
]
Pod = Annotated[
    str | None,
    typer.Option("--pod", metavar="POD", help="A pod as NAMESPACE/NAME or UID; needs --agent."),
]
Kinds = Annotated[
    Kind,
    typer.Option("--kind", help="Processes, with the writable layer, or that alone; see --pod."),
]
RuncRoot = Annotated[
    Path, typer.Option("--runc-root", metavar="DIR", help="runc's state directory (runc --root).")
]
Streams = Annotated[
    int, typer.Option("--streams", min=1, max=64, help="Objects written in parallel.")
]
Codec = Annotated[
    str,
    typer.Option(
        "--compression", metavar="CODEC", help="none, lz4, zstd or zstd:LEVEL (-7 to 22)."
    ),
]
Stop = Annotated[
    bool, typer.Option("--stop/--leave-running", help="Whether it runs on afterwards.")
]
FrozenLimit = Annotated[
    float,
    typer.Option(
        "--frozen-limit",
        metavar="SECONDS",
        min=0.001,
        max=86_400,
        help="Give up, and let it run on, when it is frozen for longer.",
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="A name for people, kept with it.")
]

Tcp = Annotated[
    Policy | None,
    typer.Option(
        "--tcp",
        metavar="POLICY",
        help=(
            "Of open TCP connections: established keeps them, close gives them up, skip-in-flight"
            " keeps those that somebody has accepted. Default: refuse what has any."
        ),
        rich_help_panel=_TOLD,
    ),
]
RestoreTcp = Annotated[
    Policy | None,
    typer.Option(
        "--tcp",
        metavar="POLICY",
        help="close: end the connections that the checkpoint has. Default: as it was taken.",
        rich_help_panel=_TOLD,
    ),
]
TcpEstablished = Annotated[
    bool,
    typer.Option("--tcp-established", help="As --tcp established.", rich_help_panel=_TOLD),
]
TcpClose = Annotated[
    bool,
    typer.Option("--tcp-close", help="Give up accepted connections only.", rich_help_panel=_TOLD),
]
TcpSkipInFlight = Annotated[
    bool,
    typer.Option(
        "--tcp-skip-in-flight", help="Leave out connections being set up.", rich_help_panel=_TOLD
    ),
]
GhostLimit = Annotated[
    int | None,
    typer.Option(
        "--ghost-limit",
        metavar="BYTES",
        min=1,
        max=(1 << 32) - 1,
        help="Of a deleted file that is still open. Default: CRIU's own.",
        rich_help_panel=_TOLD,
    ),
]
LogLevel = Annotated[
    int,
    typer.Option("--log-level", min=0, max=4, help="Of CRIU's log.", rich_help_panel=_TOLD),
]
ExtUnixSk = Annotated[
    bool,
    typer.Option(
        "--ext-unix-sk", help="Allow unix sockets that lead outside.", rich_help_panel=_TOLD
    ),
]
ShellJob = Annotated[
    bool,
    typer.Option("--shell-job", help="It was started from a terminal.", rich_help_panel=_TOLD),
]
FileLocks = Annotated[
    bool, typer.Option("--file-locks", help="Take file locks along.", rich_help_panel=_TOLD)
]
LinkRemap = Annotated[
    bool,
    typer.Option(
        "--link-remap", help="Keep deleted files that are still open.", rich_help_panel=_TOLD
    ),
]
CgroupsMode = Literal["soft", "full", "strict", "ignore"]
ManageCgroupsMode = Annotated[
    CgroupsMode,
    typer.Option(
        "--manage-cgroups-mode", help="What a restore does with cgroups.", rich_help_panel=_TOLD
    ),
]

NewId = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="Of the restored container. Default: as it was."),
]
RestoredMember = Annotated[
    str | None,
    typer.Option("--member", metavar="NAME", help="Of a pod's containers only this one."),
]
Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="DIR", help="Its OCI bundle. Default: where it was."),
]
RestoreRuncRoot = Annotated[
    Path | None,
    typer.Option("--runc-root", metavar="DIR", help="runc's state directory. Default: as it was."),
]

FreezeId = Annotated[
    str | None,
    typer.Argument(metavar="FREEZE_ID", help="What `freeze` has told; a daemon thaws it."),
]
All = Annotated[
    bool, typer.Option("--all", help="Everything this agent left behind on this machine.")
]
