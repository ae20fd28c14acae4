"""What the API tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Seconds. Most answers take a few milliseconds; a POST waits for the broker, 5 s at most.
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ApiMetrics:
    """One registry; names begin with checkpoint_api_."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()

        def name(rest: str) -> str:
            return f"checkpoint_api_{rest}"

        build = Gauge(name("build_info"), "Version", ["version"], registry=self.registry)
        build.labels(version).set(1)
        self.requests = Histogram(
            name("request_seconds"),
            "Time to answer, by route and status",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.accepted = Counter(
            name("actions_accepted"), "Actions handed over", ["type"], registry=self.registry
        )
        self.given_up = Counter(
            name("actions_given_up"), "Actions ended by the API", ["code"], registry=self.registry
        )
        self.events = Counter(
            name("events"), "Events taken over by this instance", registry=self.registry
        )
        self.position = Gauge(
            name("projector_sequence"),
            "Last message of ACTION_EVENTS that this instance took over",
            registry=self.registry,
        )
        self.projecting = Gauge(
            name("projecting"), "Whether this instance takes over events", registry=self.registry
        )
        self.broker_connected = Gauge(
            name("broker_connected"), "Whether there is a broker", registry=self.registry
        )
        self.nodes = Gauge(name("nodes"), "Live nodes", registry=self.registry)
