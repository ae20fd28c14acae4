"""The daemon's configuration: one TOML file, overridden key by key from the environment."""

from agent.settings.criu import CriuOpts
from agent.settings.load import CONFIG_VARIABLE, DEFAULT_CONFIG, load
from agent.settings.model import (
    Api,
    Checkpoint,
    Cluster,
    Log,
    Metrics,
    Nats,
    Node,
    Pods,
    Rpc,
    Settings,
    Storage,
)
from agent.settings.upkeep import Drain, Heartbeat

__all__ = [
    "CONFIG_VARIABLE",
    "DEFAULT_CONFIG",
    "Api",
    "Checkpoint",
    "Cluster",
    "CriuOpts",
    "Drain",
    "Heartbeat",
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
