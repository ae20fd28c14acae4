"""Who is there and who is not, by what was heard and when."""

from __future__ import annotations

import json

import pytest

from agent.events import Nodes
from agent.targets import PodRef

LEASE = 30.0


def entry(node: str, *pods: tuple[str, str, str], cluster: str = "test") -> bytes:
    """An entry with pods, each by UID, namespace and name."""
    refs = [{"ref": dict(zip(("uid", "namespace", "name"), pod, strict=True))} for pod in pods]
    return json.dumps({"cluster": cluster, "node": node, "pods": refs}).encode()


def there(nodes: Nodes) -> list[str]:
    return [f"{info.cluster}.{info.node}" for info in nodes.live()]


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes()
    nodes.begin(LEASE)
    return nodes


def test_nobody_is_there_before_anything_was_heard() -> None:
    nodes = Nodes()
    assert nodes.live() == []
    assert nodes.find(PodRef(uid="u1"), None) == []
    assert nodes.get("test", "a") is None
    assert nodes.steady_since is None


def test_nodes_are_sorted_whoever_was_heard_last(nodes: Nodes) -> None:
    for key in ("b.a", "a.c", "a.b", "a.c"):
        cluster, _, node = key.partition(".")
        nodes.renew(key, entry(node, cluster=cluster), 0)
    assert there(nodes) == ["a.b", "a.c", "b.a"]


def test_a_node_is_there_for_as_long_as_its_lease(nodes: Nodes) -> None:
    nodes.renew("test.a", entry("a", ("u1", "default", "web")), 100)
    nodes.renew("test.b", entry("b"), 110)
    nodes.heard(100 + LEASE - 0.1)
    assert there(nodes) == ["test.a", "test.b"]
    nodes.heard(100 + LEASE)
    assert there(nodes) == ["test.b"]
    assert nodes.get("test", "a") is None
    assert nodes.find(PodRef(uid="u1"), None) == []
    nodes.heard(110 + LEASE)
    assert there(nodes) == []


def test_a_renewal_begins_the_lease_anew(nodes: Nodes) -> None:
    for now in (0, 20, 40, 60):
        nodes.renew("test.a", entry("a"), now)
        nodes.heard(now + LEASE - 1)
        assert there(nodes) == ["test.a"]
    nodes.renew("test.a", entry("a", ("u1", "default", "web")), 80)
    nodes.heard(80 + LEASE - 1)
    assert there(nodes) == ["test.a"]


def test_what_says_the_same_again_is_not_read_again(nodes: Nodes) -> None:
    nodes.renew("test.a", entry("a"), 0)
    before = nodes.get("test", "a")
    nodes.renew("test.a", bytes(bytearray(entry("a"))), 10)
    assert nodes.get("test", "a") is before
    nodes.renew("test.a", entry("a") + b" ", 20)
    assert nodes.get("test", "a") is not before


def test_who_is_removed_is_gone_until_renewed(nodes: Nodes) -> None:
    value = entry("a", ("u1", "default", "web"))
    nodes.renew("test.a", value, 0)
    nodes.remove("test.a", 0)
    nodes.remove("test.a", 0)
    nodes.remove("test.never", 0)
    assert nodes.live() == []
    assert nodes.find(PodRef(uid="u1"), None) == []
    nodes.renew("test.a", value, 1)
    assert len(nodes.find(PodRef(uid="u1"), None)) == 1


def test_it_is_known_since_when_a_node_is_gone(nodes: Nodes) -> None:
    assert nodes.gone_since("test", "a") is None
    for node in "abc":
        nodes.renew(f"test.{node}", entry(node), 90)
    nodes.complete(100)
    # Who was never there is gone for as long as we have looked.
    assert nodes.gone_since("test", "never") == 100
    assert nodes.gone_since("test", "a") is None
    nodes.remove("test.a", 105)
    nodes.remove("test.a", 107)
    nodes.renew("test.b", entry("b", ("u1", "default", "web")), 110)
    nodes.renew("test.b", b"{", 115)
    nodes.heard(90 + LEASE)
    assert [nodes.gone_since("test", node) for node in "abc"] == [105, 115, 120]
    nodes.renew("test.a", entry("a"), 130)
    assert nodes.gone_since("test", "a") is None
    nodes.remove("test.a", 140)
    assert nodes.gone_since("test", "a") == 140
    # After a day everybody has been given up.
    nodes.heard(115 + 86_400)
    assert [nodes.gone_since("test", node) for node in "abc"] == [140, 100, 120]


def test_what_nobody_has_looked_at_is_not_known_to_be_gone(nodes: Nodes) -> None:
    nodes.renew("test.a", entry("a"), 90)
    nodes.complete(100)
    nodes.remove("test.a", 105)
    nodes.steady_since = None
    nodes.begin(LEASE)
    assert nodes.gone_since("test", "a") is None
    nodes.complete(150)
    assert nodes.gone_since("test", "a") == 150


def test_a_session_replaces_what_was_there_when_it_is_complete(nodes: Nodes) -> None:
    for node in "ab":
        nodes.renew(f"test.{node}", entry(node, (node, "default", "web")), 0)
    nodes.complete(1)
    assert nodes.steady_since == 1
    nodes.begin(LEASE)
    nodes.renew("test.b", entry("b", ("b", "default", "web")), 100)
    nodes.renew("test.c", entry("c"), 100)
    # Old and new: nobody who looks now misses what is there.
    assert there(nodes) == ["test.a", "test.b", "test.c"]
    nodes.complete(101)
    assert there(nodes) == ["test.b", "test.c"]
    assert nodes.steady_since == 101
    assert [each.node for each in nodes.find(PodRef(name="web"), None)] == ["b"]


def test_an_entry_that_was_old_when_it_was_read_is_not_there(nodes: Nodes) -> None:
    nodes.renew("test.a", entry("a"), 10)
    nodes.renew("test.b", entry("b"), 30)
    nodes.complete(10 + LEASE)
    assert there(nodes) == ["test.b"]


PODS = {
    "one": ("u1", "default", "web"),
    "two": ("u2", "shop", "web"),
    "three": ("u3", "shop", "db"),
    "four": ("u4", "default", "web"),
}


@pytest.fixture
def full(nodes: Nodes) -> Nodes:
    nodes.renew("test.a", entry("a", PODS["one"], PODS["two"]), 0)
    nodes.renew("test.b", entry("b", PODS["three"], ("", "", "")), 0)
    nodes.renew("prod.a", entry("a", PODS["four"], cluster="prod"), 0)
    return nodes


@pytest.mark.parametrize(
    ("ref", "cluster", "found"),
    [
        (PodRef("u1"), None, ["u1"]),
        (PodRef("u1", "default", "web"), None, ["u1"]),
        (PodRef("u1", "default"), None, ["u1"]),
        (PodRef("u1", "shop"), None, []),
        (PodRef("u1", "", "db"), None, []),
        (PodRef("", "default", "web"), None, ["u1", "u4"]),
        (PodRef("", "default", "web"), "prod", ["u4"]),
        (PodRef("", "", "web"), None, ["u1", "u2", "u4"]),
        (PodRef("", "", "web"), "test", ["u1", "u2"]),
        (PodRef("u1"), "prod", []),
        (PodRef("u9"), None, []),
        (PodRef("", "shop", ""), None, []),
        (PodRef(), None, []),
    ],
)
def test_pods_are_found_by_all_that_is_given(
    full: Nodes, ref: PodRef, cluster: str | None, found: list[str]
) -> None:
    places = full.find(ref, cluster)
    assert sorted(each.pod.ref.uid for each in places) == found
    for each in places:
        info = full.get(each.cluster, each.node)
        assert info is not None
        assert each.pod in info.pods


def test_a_pod_that_moves_is_found_where_it_is(full: Nodes) -> None:
    full.renew("test.a", entry("a", PODS["two"]), 1)
    full.renew("test.b", entry("b", PODS["three"], PODS["one"]), 1)
    assert [each.node for each in full.find(PodRef("u1"), None)] == ["b"]
    assert [each.node for each in full.find(PodRef("u2"), None)] == ["a"]


def test_a_pod_that_two_nodes_name_is_in_two_places(full: Nodes) -> None:
    full.renew("test.b", entry("b", PODS["one"], PODS["one"]), 1)
    assert [each.node for each in full.find(PodRef("u1"), None)] == ["a", "b", "b"]
    full.remove("test.b", 2)
    assert [each.node for each in full.find(PodRef("u1"), None)] == ["a"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("test.a", b"null"),
        ("test.a", b"3"),
        ("test.a", b'{"cluster": 3}'),
        ("test.a", b'{"cluster": "test", "node": "a", "pods": {"ref": 1}}'),
        ("test.a", b'{"cluster": "test", "node": "a", "started": "yesterday"}'),
        ("test.a", b'{"pods":' * 10_000),
        ("test.a", entry("b")),
        ("test.a", entry("A")),
        ("a", entry("a")),
        ("test.a.b", entry("a.b")),
        ("test.", entry("")),
        ("te=st.a", entry("a", cluster="te=st")),
        ("test." + "a" * 200, entry("a" * 200)),
    ],
)
def test_what_no_agent_writes_is_ignored_and_told_once(
    nodes: Nodes, key: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for now in range(3):
        nodes.renew(key, value, now)
    nodes.complete(3)
    assert nodes.live() == []
    assert caplog.text.count("ignored") == 1
    assert len(caplog.text) < 2000


def test_nobody_fills_the_log(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(3000):
        nodes.renew(f"test.{number}", b"{", 0)
    assert caplog.text.count("ignored") == 1000


def test_a_node_that_writes_sense_again_is_told_of_again(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    for value in (b"{", entry("a"), b"{"):
        nodes.renew("test.a", value, 0)
    assert nodes.live() == []
    assert caplog.text.count("ignored") == 2
