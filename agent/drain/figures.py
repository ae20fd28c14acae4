"""What drains come to, for Prometheus; docs/daemon.md lists it."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from agent.metrics import PREFIX, Metrics

# From a node with one small pod to the two minutes that the kindest cloud gives.
_BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)


class Figures:
    """Safe to use from any thread."""

    def __init__(self, metrics: Metrics) -> None:
        to = metrics.registry
        self.pods = Counter(
            f"{PREFIX}drain_pods", "Pods of drained nodes, by outcome", ["outcome"], registry=to
        )
        self.seconds = Histogram(
            f"{PREFIX}drain_seconds", "From the notice to the end", buckets=_BUCKETS, registry=to
        )
        self.draining = Gauge(
            f"{PREFIX}draining", "1 while there is a notice that the node goes", registry=to
        )
