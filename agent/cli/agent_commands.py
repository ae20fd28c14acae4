"""Commands that only a daemon can answer: its actions, its pods, itself, and keeping frozen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.agent_operations import given_on_command_line, pod_of
from agent.cli.agent_option import Daemon, ask, with_agent
from agent.cli.errors import FreezeInterrupted
from agent.cli.options import OutputOption
from agent.cli.output import Output, emit
from agent.config import DEFAULT_RUNC_ROOT
from agent.errors import InvalidArgument
from agent.targets import RuncTarget

if TYPE_CHECKING:
    from agent.messages.model import State

actions_app = typer.Typer(
    name="actions",
    help="What a daemon does and has done. Without COMMAND: a list, newest first.",
    rich_markup_mode=None,
)

ActionId = Annotated[str, typer.Argument(metavar="ID", help="An action's id.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="Only these; may be given several times."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Only of this one.")]
FreezeTarget = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="A pod as NAMESPACE/NAME, or a container's id."),
]
Pod = Annotated[bool, typer.Option("--uid", help="TARGET is a pod's UID.")]
RuncRoot = Annotated[
    Path, typer.Option("--runc-root", metavar="DIR", help="Where runc keeps the container.")
]
For = Annotated[
    str,
    typer.Option("--for", metavar="TIME", help="Thaw by itself after so long: 500ms, 30s, 5m."),
]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "": 1.0}


@actions_app.callback(invoke_without_command=True)
@with_agent
def list_actions(
    context: typer.Context,
    daemon: Daemon,
    state: States = None,
    limit: Limit = 100,
    output: OutputOption = Output.TEXT,
) -> None:
    if context.invoked_subcommand is not None:
        if any(given_on_command_line(context, name) for name in context.params):
            raise InvalidArgument("actions", f"options go after {context.invoked_subcommand!r}")
        return
    states = [_state(name) for name in state or ()]
    found = ask(daemon, lambda client, _: client.actions(states, limit), output)
    from agent.cli.agent_tables import action_document, action_list

    document = {"actions": [action_document(one) for one in found]}
    emit(document, output, lambda: action_list(found))


@actions_app.command("show")
@with_agent
def show_action(action_id: ActionId, daemon: Daemon, output: OutputOption = Output.TEXT) -> None:
    """Show one action."""
    found = ask(daemon, lambda client, _: client.action(action_id), output)
    from agent.cli.agent_tables import action_document, action_facts

    emit(action_document(found), output, lambda: action_facts(found))


@actions_app.command("cancel")
@with_agent
def cancel_action(action_id: ActionId, daemon: Daemon, output: OutputOption = Output.TEXT) -> None:
    """Give an action up, and wait until everything is put back."""
    found = ask(daemon, lambda client, _: client.cancel(action_id), output)
    from agent.cli.agent_tables import action_document, action_facts

    emit(action_document(found), output, lambda: action_facts(found))


def pods(daemon: Daemon, namespace: Namespace = "", output: OutputOption = Output.TEXT) -> None:
    """List the pods of a daemon's node."""
    found = ask(daemon, lambda client, _: client.pods(namespace), output)
    from agent.cli.agent_tables import pod_document, pod_list

    emit({"pods": [pod_document(one) for one in found]}, output, lambda: pod_list(found))


def node(daemon: Daemon, output: OutputOption = Output.TEXT) -> None:
    """Show what a daemon's node is."""
    found = ask(daemon, lambda client, _: client.node(), output)
    from agent.cli.agent_tables import node_document, node_facts

    emit(node_document(found), output, lambda: node_facts(found))


def freeze(
    target: FreezeTarget,
    daemon: Daemon,
    limit: For,
    uid: Pod = False,
    runc_root: RuncRoot = DEFAULT_RUNC_ROOT,
    output: OutputOption = Output.TEXT,
) -> None:
    """Have a daemon stop every task of a pod or container, for a limited time."""
    is_pod = uid or "/" in target
    wanted = pod_of(target) if is_pod else RuncTarget(target, runc_root.absolute())
    seconds = parse_duration(limit)
    found = ask(daemon, lambda client, _: client.freeze(wanted, seconds), output, FreezeInterrupted)
    from agent.cli.agent_tables import frozen

    document = {
        "freeze_id": found.freeze_id,
        "until": found.until.isoformat(),
        "containers": list(found.containers),
    }
    emit(document, output, lambda: frozen(found))


def parse_duration(text: str) -> float:
    """``500ms``, ``30s``, ``5m`` or plain seconds, in seconds. Raises InvalidArgument."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|)", text)
    if not found:
        raise InvalidArgument("--for", f"{text!r} is no time like 500ms, 30s or 5m")
    return float(found[1]) * _SECONDS[found[2]]


def _state(name: str) -> State:
    from agent.messages.model import State

    try:
        return State(name)
    except ValueError:
        known = ", ".join(state.value for state in State)
        raise InvalidArgument("--state", f"{name!r} is none of {known}") from None
