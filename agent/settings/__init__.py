"""The daemon's configuration: one TOML file, overridden key by key from the environment."""

from agent.settings.load import CONFIG_VARIABLE, DEFAULT_CONFIG, load
from agent.settings.model import (
    Api,
    Checkpoint,
    CriuOpts,
    Log,
    Metrics,
    Nats,
    Node,
    Pods,
    Rpc,
    Settings,
    Storage,
)

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_CONFIG",
    "Api",
    "Checkpoint",
    "CriuOpts",
    "Log",
    "Metrics",
    "Nats",
    "Node",
    "Pods",
    "Rpc",
    "Settings",
    "Storage",
    "load",
]
