"""A nats-server as a unit, as it may stand on a node, and messages through it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.servers.jetstream import Stream
from tests.servers.nats import SERVER, NatsServer
from tests.servers.nats_client import PlainClient
from tests.system.inside.node import PATIENCE, systemctl

Json = dict[str, Any]

PORT = 4222
URL = f"nats://127.0.0.1:{PORT}"
_UNIT = Path("/etc/systemd/system/nats-server.service")
# Restarted with the machine: both units of ours have it in After=.
_TEXT = f"""\
[Service]
ExecStart={SERVER} --addr 127.0.0.1 --port {PORT} --jetstream --store_dir /var/lib/nats
[Install]
WantedBy=multi-user.target
"""


def start_broker() -> None:
    """Start it, unless it runs; it comes up again with the machine."""
    _UNIT.write_text(_TEXT)
    systemctl("daemon-reload")
    systemctl("enable", "--now", _UNIT.name)


def publish(subject: str, message: Json) -> None:
    """Send a message as any client does."""
    with PlainClient(PORT) as client:
        client.publish(subject, json.dumps(message).encode())


def outcome(action_id: str) -> Json:
    """The last event of an action, once it has ended."""
    # Only its port is asked for: it was started by systemd.
    stream = Stream(NatsServer(Path("/nonexistent"), {}, port=PORT), "ACTION_EVENTS")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        events = [each.body for each in stream.messages() if each.body["actionId"] == action_id]
        if events and events[-1]["state"] in ("ready", "error"):
            return events[-1]
        time.sleep(0.5)
    raise AssertionError(f"{action_id} has not ended: {stream.messages()}")
