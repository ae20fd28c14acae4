"""The configuration that the daemon and the API share, as it would be in /etc."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.dev.places import Places, write_secret
from agent.settings import Pods, Settings, load

# Seconds that running actions may finish in when it is stopped: somebody waits at a terminal.
_STOP_SECONDS = 5.0


def configure(
    places: Places, *, broker_port: int, port: int, store: str, runc_roots: Sequence[Path]
) -> Settings:
    """Write the file and return what is in it.

    Args:
        port: of the API; 0 takes any free one.
        runc_roots: where to look for pods beside the usual places.
    """
    roots = dict.fromkeys([*Pods().runc_roots, *runc_roots])
    tables: dict[str, dict[str, object]] = {
        "nats": {
            "url": f"nats://127.0.0.1:{broker_port}",
            "token_file": str(places.broker_token),
        },
        "storage": {"store": store},
        "pods": {"runc_roots": [str(root) for root in roots]},
        "rpc": {"socket": str(places.socket)},
        # A daemon of this machine may have the usual port.
        "metrics": {"address": "127.0.0.1:0"},
        "api": {"address": f"127.0.0.1:{port}", "database": f"sqlite:///{places.database}"},
        "log": {"format": "json"},
    }
    lines = [f"state_dir = {_toml(str(places.daemon))}", f"stop_seconds = {_STOP_SECONDS}"]
    for name, keys in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
    write_secret(places.config, "\n".join(["# Written anew by each start.", *lines, ""]))
    return load(places.config, {})


def _toml(value: object) -> str:
    """TOML has JSON's texts and lists, but no pairs of escapes for one character."""
    return json.dumps(value, ensure_ascii=False)
