"""Commands that touch running things: checkpoint, restore, thaw."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent.cli import agent_operations
from agent.cli import checkpoint_options as given
from agent.cli.agent_option import Daemon
from agent.cli.errors import NotRoot, RestoreInterrupted, ThawInterrupted
from agent.cli.operation import perform
from agent.cli.options import (
    CheckpointPath,
    OutputOption,
    StateDirOption,
    StoreOption,
    chosen_state_dir,
    required_store,
)
from agent.cli.output import Output, emit
from agent.config import DEFAULT_RUNC_ROOT
from agent.errors import InvalidArgument
from agent.targets import Kind

if TYPE_CHECKING:
    from agent.checkpoint import CheckpointRequest
    from agent.manifest import Options
    from agent.restore import RestoreRequest
    from agent.targets import ProcessTarget, RuncTarget


def checkpoint(
    context: typer.Context,
    daemon: Daemon,
    container: given.Container = None,
    pid: given.Pid = None,
    pod: given.Pod = None,
    kind: given.Kinds = Kind.SIMPLE,
    runc_root: given.RuncRoot = DEFAULT_RUNC_ROOT,
    store: StoreOption = None,
    streams: given.Streams = 4,
    compression: given.Codec = "zstd",
    stop: given.Stop = False,
    frozen_limit: given.FrozenLimit = 300.0,
    name: given.Name = None,
    tcp: given.Tcp = None,
    tcp_established: given.TcpEstablished = False,
    tcp_close: given.TcpClose = False,
    ext_unix_sk: given.ExtUnixSk = False,
    shell_job: given.ShellJob = False,
    file_locks: given.FileLocks = False,
    link_remap: given.LinkRemap = False,
    manage_cgroups_mode: given.ManageCgroupsMode = "soft",
    tcp_skip_in_flight: given.TcpSkipInFlight = False,
    ghost_limit: given.GhostLimit = None,
    log_level: given.LogLevel = 4,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Checkpoint a running container or process tree into a store."""
    if daemon.is_given:
        agent_operations.checkpoint(context, daemon, output)
        return
    if pod is not None or kind is not Kind.SIMPLE:
        raise InvalidArgument("--pod, --kind", "only a daemon knows pods: give --agent")
    target = _target(container, pid, runc_root)
    _require_root("checkpoint")
    from agent.checkpoint import CheckpointRequest, MemberRequest
    from agent.compress import parse_compression

    request = CheckpointRequest(
        members=(MemberRequest(target),),
        store=required_store(store),
        streams=streams,
        compression=parse_compression(compression),
        stop=stop,
        name=name,
        options=_options(context),
        frozen_limit=frozen_limit,
    )
    _checkpoint(request, chosen_state_dir(state_dir), output)


def _target(container: str | None, pid: int | None, runc_root: Path) -> RuncTarget | ProcessTarget:
    if (container is None) == (pid is None):
        raise InvalidArgument(argument="target", reason="give either a CONTAINER or --pid PID")
    from agent.targets import ProcessTarget, RuncTarget

    if pid is not None:
        return ProcessTarget(pid=pid)
    return RuncTarget(container=str(container), root=runc_root)


def _options(context: typer.Context) -> Options:
    """CRIU's options as given; parameters of ``checkpoint`` are named as the manifest's fields."""
    from agent.manifest import Options

    said = {name: context.params[name] for name in Options.model_fields}
    return Options(**{**said, **agent_operations.connections(context)})


def _checkpoint(request: CheckpointRequest, state_dir: Path, output: Output) -> None:
    from agent.checkpoint import checkpoint as run_checkpoint
    from agent.config import find_tools

    tools = find_tools()
    result = perform(
        lambda observer: run_checkpoint(
            request, tools=tools, state_dir=state_dir, observer=observer
        ),
        output,
    )
    from agent.cli.tables import checkpoint_summary

    emit(result, output, lambda: checkpoint_summary(result))


def restore(
    context: typer.Context,
    path: CheckpointPath,
    daemon: Daemon,
    container: given.NewId = None,
    member: given.RestoredMember = None,
    bundle: given.Bundle = None,
    runc_root: given.RestoreRuncRoot = None,
    tcp: given.RestoreTcp = None,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Bring a checkpoint back to life."""
    if daemon.is_given:
        agent_operations.restore(context, path, daemon, output)
        return
    _require_root("restore")
    from agent.manifest import Options
    from agent.restore import RestoreRequest
    from agent.store.url import open_checkpoint

    store, checkpoint_id = open_checkpoint(path)
    request = RestoreRequest(
        store=store,
        checkpoint_id=checkpoint_id,
        container=container,
        member=member,
        bundle=bundle,
        runc_root=runc_root,
        options=Options().model_copy(update=agent_operations.connections(context)),
    )
    _restore(request, chosen_state_dir(state_dir), output)


def _restore(request: RestoreRequest, state_dir: Path, output: Output) -> None:
    from agent.config import find_tools
    from agent.restore import restore as run_restore

    tools = find_tools()
    result = perform(
        lambda observer: run_restore(request, tools=tools, state_dir=state_dir, observer=observer),
        output,
        RestoreInterrupted,
    )
    from agent.cli.tables import restore_summary

    emit(result, output, lambda: restore_summary(result))


def thaw(
    daemon: Daemon,
    freeze_id: given.FreezeId = None,
    everything: given.All = False,
    state_dir: StateDirOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Thaw what `freeze` froze, or clean up after operations that were killed half-way."""
    if freeze_id is not None:
        agent_operations.thaw(freeze_id, daemon, output)
        return
    if not everything:
        raise InvalidArgument(
            argument="--all", reason="has to be given: it thaws whatever it finds"
        )
    _require_root("thaw")
    from agent.config import find_tools
    from agent.operation.recovery import recover_all

    directory = chosen_state_dir(state_dir)
    recovered = perform(
        lambda _observer: recover_all(tools=find_tools, state_dir=directory),
        output,
        ThawInterrupted,
    )
    from agent.cli.tables import recovered_summary

    emit({"recovered": recovered}, output, lambda: recovered_summary(recovered))


def _require_root(command: str) -> None:
    if os.geteuid() != 0:
        raise NotRoot(command=command)
