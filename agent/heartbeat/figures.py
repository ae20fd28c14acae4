"""What heartbeats come to, for Prometheus; docs/daemon.md lists it."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from agent.metrics import PREFIX, Metrics


class Figures:
    """Safe to use from any thread."""

    def __init__(self, metrics: Metrics) -> None:
        to = metrics.registry
        self.beats = Counter(
            f"{PREFIX}heartbeats", "Heartbeats by what became of them", ["outcome"], registry=to
        )
        self.skips = Counter(
            f"{PREFIX}heartbeat_skips", "Heartbeats put off, by why", ["reason"], registry=to
        )
        self.deleted = Counter(
            f"{PREFIX}heartbeats_deleted", "Checkpoints that newer ones replaced", registry=to
        )
        self.pods = Gauge(f"{PREFIX}heartbeat_pods", "Pods that have a heartbeat", registry=to)
        self.refused = Gauge(
            f"{PREFIX}heartbeat_refused_pods",
            "Pods whose annotations ask for what cannot be",
            registry=to,
        )
