"""Commands that also work without a daemon, done by one: the same results and exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agent import tcp
from agent.cli.agent_option import Daemon, ask
from agent.cli.errors import DeleteInterrupted, FreezeInterrupted, RestoreInterrupted
from agent.cli.output import Output, emit
from agent.config import DEFAULT_RUNC_ROOT
from agent.errors import Interrupted, InvalidArgument
from agent.targets import Kind, PodRef, ProcessTarget, RuncTarget

if TYPE_CHECKING:
    from agent.messages.model import CheckpointSpec, Event, RestoreOutcome
    from agent.report import CheckpointResult

# Options of `checkpoint` that a daemon takes as criu_opts, in CRIU's own names.
_CRIU_OPTS = (
    "ext_unix_sk", "shell_job", "file_locks", "link_remap", "manage_cgroups_mode", "ghost_limit",
    "log_level",
)  # fmt: skip


def checkpoint(context: typer.Context, daemon: Daemon, output: Output) -> None:
    """Have a daemon do what the parameters of the command ``checkpoint`` say."""
    spec = _checkpoint_spec(context)
    event = ask(
        daemon, lambda client, observer: client.checkpoint(spec, observer), output, Interrupted
    )
    result = _checkpoint_result(event)
    from agent.cli.tables import checkpoint_summary

    document = dataclasses.asdict(result) | {"action_id": event.action_id}
    emit(document, output, lambda: checkpoint_summary(result))


def restore(context: typer.Context, path: str, daemon: Daemon, output: Output) -> None:
    """Have a daemon do what the parameters of the command ``restore`` say."""
    from agent.messages.model import RestoreOverrides, RestoreSpec

    given = context.params
    criu_opts = connections(context)
    spec = RestoreSpec(
        path=absolute(path),
        member=given["member"],
        container_id=given["container"],
        bundle=_absolute_path(given["bundle"]),
        runc_root=_absolute_path(given["runc_root"]),
        overrides=RestoreOverrides(criu_opts=json.dumps(criu_opts) if criu_opts else None),
    )
    event = ask(
        daemon, lambda client, observer: client.restore(spec, observer), output, RestoreInterrupted
    )
    if event.restore is None:
        raise TypeError(f"a restore that is {event.state} without an outcome")
    outcome = event.restore
    from agent.cli.agent_tables import restored

    document = dataclasses.asdict(outcome) | _first(outcome) | {"action_id": event.action_id}
    emit(document, output, lambda: restored(outcome))


def list_(store: str | None, daemon: Daemon, output: Output) -> None:
    """The checkpoints of a store that the daemon may read; of its own when none is given."""
    wanted = absolute(store) if store else ""
    url, found = ask(daemon, lambda client, _: client.list_checkpoints(wanted), output)
    from agent.cli.catalog_tables import checkpoint_list

    emit({"store": url, "checkpoints": found}, output, lambda: checkpoint_list(url, found))


def inspect(path: str, daemon: Daemon, output: Output) -> None:
    """What a checkpoint holds."""
    found = ask(daemon, lambda client, _: client.inspect(absolute(path)), output)
    from agent.cli.inspect_tables import inspection

    emit(found, output, lambda: inspection(found))


def verify(path: str, daemon: Daemon, output: Output) -> None:
    """Read a whole checkpoint back, where the daemon is."""
    result = ask(daemon, lambda client, _: client.verify(absolute(path)), output)
    from agent.cli.catalog_tables import verification

    emit(result, output, lambda: verification(result))


def delete(path: str, daemon: Daemon, output: Output) -> None:
    """Delete a checkpoint for good."""
    ask(daemon, lambda client, _: client.delete(absolute(path)), output, DeleteInterrupted)
    from agent.cli.catalog_tables import deleted

    emit({"deleted": path}, output, lambda: deleted(path))


def thaw(freeze_id: str, daemon: Daemon, output: Output) -> None:
    """Have a daemon let run again what it keeps frozen."""
    found = ask(daemon, lambda client, _: client.thaw(freeze_id), output, FreezeInterrupted)
    from agent.cli.agent_tables import thawed

    emit(found, output, lambda: thawed(found))


def pod_of(text: str) -> PodRef:
    """NAMESPACE/NAME, or a UID. Raises InvalidArgument."""
    namespace, slash, name = text.partition("/")
    if not slash:
        return PodRef(uid=text)
    if not namespace or not name or "/" in name:
        raise InvalidArgument("--pod", f"{text!r} is neither NAMESPACE/NAME nor a UID")
    return PodRef(namespace=namespace, name=name)


def absolute(place: str) -> str:
    """A store's URL as it is; a directory from here, because the daemon works somewhere else."""
    return place if ":" in place.partition("/")[0] else os.path.abspath(place)


def given_on_command_line(context: typer.Context, name: str) -> bool:
    """Whether somebody has typed it: a daemon has defaults of its own."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def connections(context: typer.Context) -> dict[str, bool]:
    """Of CRIU's options for TCP those that --tcp, or its flags of old, have decided.

    Raises:
        InvalidArgument: they contradict each other.
    """
    names = [name for name in tcp.FIELDS if given_on_command_line(context, name)]
    try:
        return tcp.chosen(context.params["tcp"], {name: context.params[name] for name in names})
    except ValueError as error:
        raise InvalidArgument("--tcp", str(error)) from None


def _absolute_path(path: Path | None) -> str | None:
    return str(path.absolute()) if path is not None else None


def _checkpoint_spec(context: typer.Context) -> CheckpointSpec:
    from agent.messages.model import CheckpointOverrides, CheckpointSpec

    given = {
        name: value
        for name, value in context.params.items()
        if given_on_command_line(context, name)
    }
    if given.get("stop"):
        raise InvalidArgument("--stop", "not with --agent: a daemon leaves running what it takes")
    if "frozen_limit" in given:
        reason = "not with --agent: a daemon has its own, [checkpoint] frozen_limit_seconds"
        raise InvalidArgument("--frozen-limit", reason)
    # Of the flags only what was typed: a daemon has a policy of its own for the rest.
    said = {
        name: value
        for name, value in connections(context).items()
        if name in given or "tcp" in given
    }
    criu_opts = said | {name: given[name] for name in _CRIU_OPTS if name in given}
    return CheckpointSpec(
        target=_target(context.params),
        kind=Kind(given.get("kind", Kind.SIMPLE)),
        name=given.get("name"),
        overrides=CheckpointOverrides(
            compression=given.get("compression"),
            criu_opts=json.dumps(criu_opts) if criu_opts else None,
            directory=absolute(given["store"]) if "store" in given else None,
            streams=given.get("streams"),
        ),
    )


def _target(given: dict[str, Any]) -> PodRef | RuncTarget | ProcessTarget:
    named = [name for name in ("container", "pid", "pod") if given[name] is not None]
    if len(named) != 1:
        raise InvalidArgument("target", "give one of CONTAINER, --pid PID and --pod POD")
    if given["pod"] is not None:
        return pod_of(given["pod"])
    if given["pid"] is not None:
        return ProcessTarget(given["pid"])
    root = given["runc_root"] or DEFAULT_RUNC_ROOT
    return RuncTarget(given["container"], root.absolute())


def _first(outcome: RestoreOutcome) -> dict[str, object]:
    """The first member, where the command's own result has it."""
    first = outcome.members[0]
    return {
        "kind": "runc" if first.container_id else "process",
        "target": first.container_id or first.name,
        "pid": first.pid,
    }


def _checkpoint_result(event: Event) -> CheckpointResult:
    from agent.report import CheckpointResult

    outcome = event.checkpoint
    if outcome is None:
        raise TypeError(f"a checkpoint that is {event.state} without an outcome")
    return CheckpointResult(
        checkpoint_id=outcome.checkpoint_id,
        path=outcome.path,
        name=outcome.name,
        frozen_seconds=outcome.frozen_seconds,
        wall_seconds=outcome.wall_seconds,
        phases=dict(outcome.phases),
        bytes_raw=outcome.bytes_raw,
        bytes_stored=outcome.bytes_stored,
        chunks=outcome.chunks,
        streams=outcome.streams,
        codec=outcome.codec,
        streamed=outcome.streamed,
        fallback_reason=outcome.fallback_reason,
        containers=list(outcome.containers),
        cuda_seconds=outcome.cuda_seconds,
        gpus=list(outcome.gpus),
    )
