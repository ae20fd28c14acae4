"""What has to be true of a real pod whatever an action has done: it runs, and never knew of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.leftovers import cgroup_paths
from bench.reports import Counter, wait_until
from tests.networks import filter_rules
from tests.nodes import Json
from tests.servers.cri_pods import Pod


def named(pod: Pod) -> Json:
    """The pod as a request names it."""
    return {"pod": {"namespace": pod.namespace, "name": pod.name}}


def counters(pod: Pod) -> list[str]:
    """Its containers that count."""
    return [name for name in pod.containers if pod.report(name).path.name == "counter"]


def is_frozen(pod: Pod, container: str) -> bool:
    """Whether a container's cgroup is frozen, or about to be."""
    states = []
    for path in cgroup_paths(f"{pod.server.name}/pod{pod.uid}/{pod.containers[container]}"):
        for control in ("freezer.state", "cgroup.freeze"):
            if (path / control).exists():
                states.append((path / control).read_text().strip())
    assert states, "it has no freezer"
    return any(state in ("FROZEN", "FREEZING", "1") for state in states)


def forget_gaps(pod: Pod) -> None:
    """Have every counter look for its longest pause from now on."""
    for name in counters(pod):
        pod.report(name).ask(Counter.RESET, Counter.RESET_DONE)


def longest_gap(pod: Pod) -> float:
    """The longest pause, in seconds, that one of the counters has seen since."""
    gaps = []
    for name in counters(pod):
        report = pod.report(name)
        # A pause is noticed at the tick after it.
        report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 5)
        gaps.append(report.read(Counter.GAP_NS) / 1e9)
    return max(gaps)


def assert_pod_unharmed(pod: Pod) -> None:
    """Every container runs, thawed and connected, and counts as nothing but itself."""
    for name in counters(pod):
        report = pod.report(name)
        report.wait_beyond(Counter.TICKS, report.read(Counter.TICKS) + 10)
        assert report.read(Counter.RESUMES) == 0
    for name in pod.containers:
        assert not is_frozen(pod, name)
    wait_until(lambda: not _is_cut_off(pod), "the network being open")


def network_of(pod: Pod) -> Path:
    """The network namespace that its containers share."""
    [namespace] = [
        each["path"]
        for each in pod.sandbox_spec()["linux"]["namespaces"]
        if each["type"] == "network"
    ]
    return Path(namespace)


def _is_cut_off(pod: Pod) -> bool:
    """Whether a CRIU keeps the pod's network namespace locked."""
    return bool(filter_rules(network_of(pod)))


def stood_still(pod: Pod, seconds: float) -> Callable[[], bool]:
    """A condition: no container of it has counted for as long."""
    last: list[int] = []
    since = time.monotonic()

    def condition() -> bool:
        nonlocal last, since
        ticks = [pod.counter(name) for name in counters(pod)]
        if ticks != last:
            last, since = ticks, time.monotonic()
        return time.monotonic() - since >= seconds

    return condition
