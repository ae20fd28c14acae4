"""``--agent``: a command as the client of a daemon. gRPC is loaded only then."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from agent.cli.errors import ReadInterrupted
from agent.cli.operation import perform
from agent.cli.output import Output
from agent.errors import Interrupted

if TYPE_CHECKING:
    from agent.report import Observer
    from agent.rpc.client import Client

T = TypeVar("T")

DEFAULT_ADDRESS = "unix:/run/checkpoint-agent/agent.sock"
_PANEL = "As the client of a daemon"


@dataclass(frozen=True, slots=True)
class Daemon:
    """Where it is, and the files for mutual TLS where that is a TCP port.

    ``is_given`` is False when nobody has named one: commands that can do without do so.
    """

    address: str
    cert: Path | None
    key: Path | None
    ca: Path | None
    is_given: bool = field(default=True)


def _file(option: str, variable: str, what: str) -> Any:  # noqa: ANN401 - an annotation
    declared = typer.Option(
        option, metavar="FILE", envvar=variable, help=what, rich_help_panel=_PANEL
    )
    return Annotated[Path | None, declared]


_ADDRESS = Annotated[
    str | None,
    typer.Option(
        "--agent",
        metavar="ADDRESS",
        envvar="CHECKPOINT_AGENT_ADDRESS",
        help="Have the daemon at unix:/PATH or HOST:PORT do it.",
        rich_help_panel=_PANEL,
    ),
]
_OPTIONS = {
    "agent": _ADDRESS,
    "agent_tls_cert": _file(
        "--agent-tls-cert", "CHECKPOINT_AGENT_TLS_CERT", "This client's certificate."
    ),
    "agent_tls_key": _file("--agent-tls-key", "CHECKPOINT_AGENT_TLS_KEY", "Its key."),
    "agent_tls_ca": _file(
        "--agent-tls-ca", "CHECKPOINT_AGENT_TLS_CA", "Who signs the daemon's certificate."
    ),
}


def with_agent(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with four more options, which reach it as its one argument ``daemon``."""
    own = inspect.signature(command, eval_str=True)
    parameters = [one for one in own.parameters.values() if one.name != "daemon"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _OPTIONS.items()
    ]

    @functools.wraps(command)
    def wrapped(
        *,
        agent: str | None,
        agent_tls_cert: Path | None,
        agent_tls_key: Path | None,
        agent_tls_ca: Path | None,
        **given: Any,  # noqa: ANN401 - whatever the command takes
    ) -> None:
        files = (agent_tls_cert, agent_tls_key, agent_tls_ca)
        command(**given, daemon=Daemon(agent or DEFAULT_ADDRESS, *files, agent is not None))

    complete = [*parameters, *added]
    wrapped.__signature__ = own.replace(parameters=complete)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {one.name: one.annotation for one in complete}
    return wrapped


def ask(
    daemon: Daemon,
    call: Callable[[Client, Observer], Awaitable[T]],
    output: Output,
    interrupted: type[Interrupted] = ReadInterrupted,
) -> T:
    """Connect, make the call with its progress shown, and return what it returns."""

    async def asked(observer: Observer) -> T:
        from agent.rpc.channel import Tls
        from agent.rpc.client import connect

        files = Tls(daemon.cert, daemon.key, daemon.ca)
        async with connect(daemon.address, files) as client:
            return await call(client, observer)

    return perform(asked, output, interrupted)
