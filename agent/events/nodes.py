"""Which nodes there are and what runs on them: the inventory as it was when we last heard of it.

The broker forgets an entry that is not renewed without telling anybody, so it is forgotten here by
the same rule. Time stands still while nothing is heard: a broker that is away takes no node away.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.json_format import Parse, ParseError

from agent.events import subjects
from agent.logs import get_logger
from agent.pb.checkpoint_agent.v1 import actions_pb2
from agent.pb.checkpoint_agent.v1 import inventory_pb2 as pb
from agent.targets import PodRef

log = get_logger(__name__)

# Bytes. A node of 500 pods, twice what any distribution allows, has less than half of it.
MAX_ENTRY: Final = 1 << 20
# Seconds that it is remembered since when a node is gone: the longest `[api] node_lost_seconds`.
_REMEMBERED: Final = 86_400.0
# Entries to complain about, so that nobody fills the log.
_COMPLAINTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Located:
    """A pod, and the node that it is on."""

    cluster: str
    node: str
    pod: pb.Pod


@dataclass(slots=True)
class _Entry:
    """``renewed`` is of the loop's clock."""

    raw: bytes
    info: pb.NodeInfo
    renewed: float
    seen: bool = True


class Nodes:
    """The nodes whose lease has not ended. Messages that it returns are its own: change none.

    Attributes:
        steady_since: the loop's time since when this has been complete without a gap; None while
            it is not.
    """

    def __init__(self) -> None:
        self.steady_since: float | None = None
        self._lease = 0.0
        # The one that was not renewed for the longest time is the first.
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        # By all that a pod may be asked for with: what each key has of it.
        self._pods: defaultdict[PodRef, dict[str, list[Located]]] = defaultdict(dict)
        self._refused: set[str] = set()
        # Since when those are gone that were there, the longest one first.
        self._gone: dict[str, float] = {}

    def live(self) -> list[pb.NodeInfo]:
        """All nodes, sorted by cluster and name."""
        infos = (entry.info for entry in self._entries.values())
        return sorted(infos, key=lambda info: (info.cluster, info.node))

    def get(self, cluster: str, node: str) -> pb.NodeInfo | None:
        """One node, if it is there."""
        entry = self._entries.get(f"{cluster}.{node}")
        return entry.info if entry is not None else None

    def gone_since(self, cluster: str, node: str) -> float | None:
        """The loop's time since when we know that a node is not there.

        None while it is there, and while nobody can tell.
        """
        if self.steady_since is None or self.get(cluster, node) is not None:
            return None
        return max(self.steady_since, self._gone.get(f"{cluster}.{node}", self.steady_since))

    def find(self, ref: PodRef, cluster: str | None) -> list[Located]:
        """Where the pods are that all given fields match; a name alone means all namespaces.

        Args:
            ref: with a UID or a name; without either nothing is found.
            cluster: only there; None is everywhere.
        """
        narrowest = next(_names(ref), None)
        by_node = self._pods.get(narrowest, {}) if narrowest is not None else {}
        return [
            located
            for several in by_node.values()
            for located in several
            if cluster in (None, located.cluster) and _matches(located.pod.ref, ref)
        ]

    def begin(self, lease: float) -> None:
        """A session begins: everything is told anew, and what is there stays until `complete`."""
        self._lease = lease
        for entry in self._entries.values():
            entry.seen = False

    def renew(self, key: str, raw: bytes, renewed: float) -> None:
        """An entry was written at that time of the loop."""
        entry = self._entries.get(key)
        # Most of a thousand nodes say the same every ten seconds.
        if entry is not None and entry.raw == raw:
            entry.renewed, entry.seen = renewed, True
            self._entries.move_to_end(key)
            return
        self.remove(key, renewed)
        info = self._parsed(key, raw)
        if info is not None:
            self._refused.discard(key)
            self._gone.pop(key, None)
            self._entries[key] = _Entry(raw, info, renewed)
            for located, name in _all_names(info):
                self._pods[name].setdefault(key, []).append(located)

    def remove(self, key: str, removed: float) -> None:
        """A node is not there since that time of the loop."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._gone[key] = removed
        for _, name in _all_names(entry.info):
            self._pods[name].pop(key, None)
            if not self._pods[name]:
                del self._pods[name]

    def heard(self, now: float) -> None:
        """All that was written before this time of the loop is here: leases end by it."""
        while self._entries:
            key = next(iter(self._entries))
            if now - self._entries[key].renewed < self._lease:
                break
            self.remove(key, now)
        while self._gone:
            key, since = next(iter(self._gone.items()))
            if now - since < _REMEMBERED:
                break
            del self._gone[key]

    def complete(self, now: float) -> None:
        """All entries of the bucket were told once in this session."""
        for key in [key for key, entry in self._entries.items() if not entry.seen]:
            self.remove(key, now)
        self.heard(now)
        self.steady_since = now

    def _parsed(self, key: str, raw: bytes) -> pb.NodeInfo | None:
        """What a node says of itself; None for what no agent has written."""
        try:
            return _read(key, raw)
        except (ValueError, ParseError, RecursionError) as error:
            if key not in self._refused and len(self._refused) < _COMPLAINTS:
                self._refused.add(key)
                log.warning("inventory entry ignored", key=key[:300], reason=str(error)[:300])
            return None


def _read(key: str, raw: bytes) -> pb.NodeInfo:
    """Raises ValueError, ParseError or RecursionError."""
    node = subjects.node_of(key)
    if node is None:
        raise ValueError("the key names no cluster and node")
    if len(raw) > MAX_ENTRY:
        raise ValueError(f"{len(raw)} bytes are more than {MAX_ENTRY}")
    # A newer agent may say more.
    info = Parse(raw, pb.NodeInfo(), ignore_unknown_fields=True, max_recursion_depth=20)
    if (info.cluster, info.node) != (node.cluster, node.name):
        raise ValueError("the entry is of another node")
    return info


def _all_names(info: pb.NodeInfo) -> Iterator[tuple[Located, PodRef]]:
    for pod in info.pods:
        located = Located(info.cluster, info.node, pod)
        for name in _names(PodRef(pod.ref.uid, pod.ref.namespace, pod.ref.name)):
            yield located, name


def _names(ref: PodRef) -> Iterator[PodRef]:
    """All that a pod may be asked for with, the narrowest first."""
    if ref.uid:
        yield PodRef(uid=ref.uid)
    if ref.name and ref.namespace:
        yield PodRef(namespace=ref.namespace, name=ref.name)
    if ref.name:
        yield PodRef(name=ref.name)


def _matches(found: actions_pb2.PodRef, ref: PodRef) -> bool:
    """Whether a pod has all fields of ``ref`` that are given."""
    return (
        ref.uid in ("", found.uid)
        and ref.namespace in ("", found.namespace)
        and ref.name in ("", found.name)
    )
