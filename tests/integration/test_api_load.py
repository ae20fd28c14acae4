"""Fifty clients ask at once while everything that answers them is killed in turn, and comes back.

Whoever was answered with 200 has an action that was begun once, has ended, and is in the database
as its node has told it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.reports import Counter, wait_until
from bench.runc import Container, RuncRoot
from bench.scale.fleet import NodeProcess, nodes_in
from bench.scale.nodes import runs
from bench.scale.pods import pod_uid
from tests.api_ledger import (
    all_actions,
    assert_agreed,
    assert_begun_once,
    assert_kept,
    events_of,
    wait_ended,
)
from tests.api_load import Load, load_on, posts_of
from tests.api_servers import Api, api_in, postgres_settings
from tests.integration.aftermath import assert_unharmed
from tests.nodes import CLUSTER, Node, node_on
from tests.ports import free_port
from tests.runc_pods import run_container, uid_of
from tests.servers.nats import NatsServer, nats_server
from tests.servers.postgres import PostgresServer

CLIENTS, POSTS, SHARING = 50, 20, 5
# Pods of real containers, and one in so many keys that is for them: a checkpoint takes half a
# second of both cores, and there are six hundred keys.
REAL, EVERY = 4, 21
# Pods without containers, for all other keys, and the seconds that a checkpoint of one takes: two
# at a time, so that some are under way whenever their node is killed.
QUICK, WORK = 40, 0.03

# Seconds. What an API was killed with ends after 40 (agent.api.sweeper).
ENDING = 90.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    """One whose port nobody takes while it is away."""
    with nats_server(tmp_path, started=False) as server:
        server.port = free_port()
        server.start()
        yield server


@contextmanager
def quick_node(directory: Path, broker: NatsServer) -> Iterator[NodeProcess]:
    """A node whose pods are made up, in a process that can be killed."""
    with nodes_in(directory, broker.url, processes=1, nodes=1, pods=QUICK, work_seconds=WORK) as [
        process
    ]:
        yield process


def wait_seen(api: Api, pods: int) -> None:
    """Wait until the API knows that many pods."""

    def seen() -> bool:
        answer = api.get("/v2/nodes")
        return answer.status == 200 and sum(len(n["pods"]) for n in answer.json()) == pods

    api.wait_ready()
    wait_until(seen, "the API seeing all pods")


def kill_broker(broker: NatsServer, load: Load) -> None:
    """Kill it, and start it again when clients have noticed."""
    failed = load.failed
    broker.kill()
    wait_until(lambda: load.failed > failed + 20, "clients being refused")
    broker.start()


def restart(api: Api) -> None:
    """Kill it, and start it again on the same port."""
    api.kill()
    api.start()


@pytest.mark.root
@pytest.mark.criu
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_is_told_once_whatever_is_killed(
    runc: RuncRoot, broker: NatsServer, tmp_path: Path
) -> None:
    containers = [run_container(runc, f"pod-{number}") for number in range(REAL)]
    ticks = [each.report("counter").read(Counter.TICKS) for each in containers]
    with (
        quick_node(tmp_path, broker) as quick,
        node_on(tmp_path, broker, runc_roots=[runc.path]) as node,
        api_in(tmp_path, broker.url, {"api": {"address": f"127.0.0.1:{free_port()}"}}) as api,
    ):
        wait_seen(api, REAL + QUICK)
        with load_on(api) as load:
            begin_clients(load, CLIENTS, POSTS, [uid_of(f"pod-{n}") for n in range(REAL)])
            kill_in_turn(load, api, node, broker, quick)
        assert load.unexpected == []
        assert load.answered == CLIENTS * POSTS
        assert {key: len(set(ids)) for key, ids in load.ids.items()} == dict.fromkeys(load.ids, 1)
        rows = wait_ended(api, ENDING)
        assert_kept(load.accepted, rows)
        events = events_of(broker)
        assert_agreed(api, rows, events)
        assert_begun_once(events)
        begun = runs(quick.directory)
        assert len(begun) == len(set(begun))
        assert_node_clean(node, events)
        assert_counting(containers, ticks)


def begin_clients(load: Load, clients: int, posts: int, rare: list[str]) -> None:
    """Start them all."""
    quick = [pod_uid(0, number) for number in range(QUICK)]
    every = EVERY if rare else 0
    for client in range(clients):
        load.begin(
            client, posts_of(client, posts, sharing=SHARING, pods=quick, rare=rare, every=every)
        )


def kill_in_turn(load: Load, api: Api, node: Node, broker: NatsServer, quick: NodeProcess) -> None:
    """Whenever so many posts have been answered, one of them is killed."""

    def restart_daemon() -> None:
        operations = node.daemon.state_dir / "operations"
        wait_until(lambda: any(operations.iterdir()), "a checkpoint being under way")
        node.daemon.kill()
        node.start()

    def restart_quick() -> None:
        quick.kill()
        quick.start()

    def restart_both() -> None:
        api.kill()
        kill_broker(broker, load)
        api.start()

    kills = {
        80: lambda: restart(api),
        250: restart_daemon,
        400: lambda: kill_broker(broker, load),
        550: restart_quick,
        700: restart_both,
    }
    for answered, kill in kills.items():
        wait_until(lambda least=answered: load.answered >= least, "answers")  # type: ignore[misc]
        kill()


def assert_node_clean(node: Node, events: dict[str, list[dict[str, object]]]) -> None:
    """One checkpoint for each action that is ready, and nothing else."""
    node.wait_acknowledged()
    node.assert_idle()
    ready = [
        said[-1] for said in events.values()
        if said[-1]["state"] == "ready" and said[-1].get("node") == node.name
    ]  # fmt: skip
    manifests = [path for path in node.stored() if path.name == "manifest.json"]
    assert len(ready) == len(manifests) > 0
    assert {str(each["cluster"]) for each in ready} == {CLUSTER}


def assert_counting(containers: list[Container], ticks: list[int]) -> None:
    """None is frozen, and none has noticed anything."""
    for container, before in zip(containers, ticks, strict=True):
        assert container.report("counter").read(Counter.TICKS) > before
        assert_unharmed(container)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_another_instance_takes_over(
    broker: NatsServer, postgres: PostgresServer, postgres_database: str, tmp_path: Path
) -> None:
    tables, env = postgres_settings(postgres_database, postgres.password)
    places = [tmp_path / "one", tmp_path / "other"]
    for place in places:
        place.mkdir()
    with (
        quick_node(tmp_path, broker) as quick,
        api_in(places[0], broker.url, tables, env) as one,
        api_in(places[1], broker.url, tables, env) as other,
    ):
        for api in (one, other):
            wait_seen(api, QUICK)
        # Keys are a token's own, and these are everybody's.
        other.token = one.token
        with load_on(one, other) as load:
            begin_clients(load, 20, 10, [])
            wait_until(lambda: load.answered >= 60, "answers")
            one.kill()
        assert load.unexpected == []
        assert load.answered == 200
        assert {key: len(set(ids)) for key, ids in load.ids.items()} == dict.fromkeys(load.ids, 1)
        rows = wait_ended(other, ENDING)
        assert_kept(load.accepted, rows)
        events = events_of(broker)
        assert_agreed(other, rows, events)
        assert_begun_once(events)
        assert sorted(runs(quick.directory)) == sorted(events)
        assert set(all_actions(other)) >= set(events)
