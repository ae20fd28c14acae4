"""The sequence: broker, daemon, API, each when what it stands on is there; the end backwards."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from agent.api.access import renew_token
from agent.config import find_tools
from agent.daemon.lock import sole_daemon
from agent.dev import broker, config
from agent.dev.ask import get
from agent.dev.part import Part, Parts, own_program
from agent.dev.places import Places
from agent.errors import InvalidArgument
from agent.operation.recovery import recover_all
from agent.settings import Node, Settings
from agent.store import open_store

# Whose token it is. Each start makes a new one, and the one before is worthless then.
_OWNER = "dev"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What can be chosen.

    Attributes:
        port: of the API, on loopback; 0 takes any free one.
        store: a URL or a directory; None is one in ``directory``.
        runc_roots: where to look for pods beside the usual places.
    """

    directory: Path
    port: int
    store: str | None = None
    runc_roots: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """What somebody needs who wants to use it."""

    url: str
    token: str
    cluster: str
    node: str
    store: str
    directory: Path
    config: Path
    socket: Path
    logs: dict[str, Path]


async def serve(wanted: Wanted, say: Callable[[str], None], ready: Callable[[Ready], None]) -> None:
    """Run all of it until cancelled; nothing of it is left then.

    Args:
        say: gets a line for each step of the start.
        ready: called once, when everything answers.

    Raises:
        MissingTool, InvalidArgument, AlreadyRunning, DatabaseFailed: it could not begin.
        PartFailed: a part of it has ended, or does not get ready.
    """
    find_tools().require_runc()
    server = broker.find_server()
    _check_port(wanted.port)
    places = Places(wanted.directory.absolute())
    store = open_store(wanted.store or str(places.checkpoints)).url
    places.make()
    with sole_daemon(places.directory):
        async with AsyncExitStack() as stack:
            parts = Parts(stack)
            say("starting the broker")
            port = await _start_broker(parts, server, places)
            settings = config.configure(
                places,
                broker_port=port,
                port=wanted.port,
                store=store,
                runc_roots=wanted.runc_roots,
            )
            say("starting the daemon and the API")
            # After the daemon's end: whatever ended it, nothing stays frozen.
            stack.push_async_callback(recover_all, tools=find_tools, state_dir=places.daemon)
            daemon = await _start_own(parts, "daemon", places)
            token = await renew_token(settings.api, _OWNER)
            api = await _start_own(parts, "api", places)
            address = await _until_ready(parts, daemon, api, token, settings.node)
            ready(_ready(places, settings, address, token))
            await parts.until_one_ends()


async def _start_broker(parts: Parts, server: Path, places: Places) -> int:
    """Start it, and return where it listens."""
    configuration = broker.configure(places)
    part = await parts.start(
        "the broker", [server, "--config", configuration], places.log("broker")
    )
    return await parts.until(part, lambda: broker.port_of(part.process.pid, places))


async def _start_own(parts: Parts, command: str, places: Places) -> Part:
    argv = own_program(command, "--config", places.config)
    return await parts.start(f"`checkpoint-agent {command}`", argv, places.log(command), own=True)


async def _until_ready(parts: Parts, daemon: Part, api: Part, token: str, node: Node) -> str:
    """Wait until the node can be asked for actions; the API's address."""
    await parts.until(daemon, lambda: daemon.said("ready"))
    address = str((await parts.until(api, lambda: api.said("ready")))["address"])
    await parts.until(api, lambda: get(address, "/readyz"))

    def is_listed() -> bool:
        listed = get(address, "/v2/nodes", token) or []
        return (node.cluster, node.name) in [(one["cluster"], one["node"]) for one in listed]

    await parts.until(daemon, is_listed)
    return address


def _ready(places: Places, settings: Settings, address: str, token: str) -> Ready:
    return Ready(
        url=f"http://{address}",
        token=token,
        cluster=settings.node.cluster,
        node=settings.node.name,
        store=settings.storage.store,
        directory=places.directory,
        config=places.config,
        socket=places.socket,
        logs={part: places.log(part) for part in ("broker", "daemon", "api")},
    )


def _check_port(port: int) -> None:
    """Raises InvalidArgument when somebody has it: said now, it needs no log to be read."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        # Its own words end with the address, in other brackets.
        raise InvalidArgument("--port", f"{port}: {os.strerror(error.errno or 0)}") from error
