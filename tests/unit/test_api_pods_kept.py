"""Pods in the API's database: what is kept of them, and restores that wait for one."""

from __future__ import annotations

import pytest

from agent.api.database import Database, pods
from agent.api.database import actions as table
from agent.api.database.pods import Kept
from agent.api.database.tables import ActionRow
from tests.api_rows import row

ONE, TWO = Kept({"a": 1}, {"name": "web"}), Kept({"a": 2}, {"name": "web"})


async def store(database: Database, *rows: ActionRow) -> None:
    async with database.write() as session:
        session.add_all(rows)


async def keep(database: Database, made: ActionRow, pod: Kept) -> None:
    async with database.write() as session:
        await pods.keep(session, made.action_id, pod)


async def found(database: Database, made: ActionRow) -> tuple[Kept | None, object]:
    """What is known of an action's pod, and what is with the action itself."""
    async with database.read() as session:
        again = await table.get(session, made.action_id)
        assert again is not None
        return await pods.kept_of(session, again), again.upload


async def test_each_pod_is_kept_once(database: Database) -> None:
    first, second, third, fourth = (row(pod_uid="p", created=at) for at in (1, 2, 3, 4))
    await store(database, first, second, third, fourth, other := row(pod_uid="q", created=5))
    await keep(database, first, ONE)
    await keep(database, second, ONE)
    assert await found(database, second) == (ONE, None)
    # A pod may be changed in place: each is what it was then.
    await keep(database, third, TWO)
    assert (await found(database, fourth))[0] == (await found(database, third))[0] == TWO
    assert (await found(database, first))[0] == ONE
    assert await found(database, other) == (None, None)


async def test_uploads_stay(database: Database) -> None:
    made = row(pod_uid="p", upload={"pod_spec": {"mine": 1}, "persistent_volume_claim": [1]})
    await store(database, made)
    await keep(database, made, ONE)
    kept, upload = await found(database, made)
    assert kept == Kept({"mine": 1}, ONE.metadata)
    assert upload == {
        "pod_spec": {"mine": 1}, "persistent_volume_claim": [1], "pod_metadata_spec": ONE.metadata,
    }  # fmt: skip


async def test_what_no_database_keeps_is_replaced(database: Database) -> None:
    await store(database, made := row(pod_uid="p"))
    await keep(database, made, Kept({"args": ["a\0b", "\ud800"]}))
    kept, _ = await found(database, made)
    assert kept is not None
    assert kept.spec == {"args": ["a\N{REPLACEMENT CHARACTER}b", "?"]}


RESTORE = {"type": "restore_pod", "node": "", "restored_from": "x"}


async def test_which_restores_wait(database: Database) -> None:
    waits = row(**RESTORE, created=1)
    others = [
        row(**RESTORE, state="ready"),
        row(**{**RESTORE, "node": "node-a"}),
        row(**{**RESTORE, "restored_from": None}),
        row(node=""),
    ]
    await store(database, waits, *others)
    async with database.read() as session:
        assert [each.action_id for each in await pods.waiting(session)] == [waits.action_id]
    assert [pods.waits_for_pod(each) for each in (waits, *others)] == [True] + [False] * 4


@pytest.mark.parametrize(
    ("fields", "wanted", "uid"),
    [
        ({}, True, "new"),
        # A node was quicker than the answer of the cluster: nobody may delete the pod now.
        ({"state": "ready", "node": "node-a", "pod_uid": "told"}, True, "told"),
        ({"state": "processing", "node": "node-a", "pod_uid": "told"}, True, "told"),
        ({"state": "error", "node": "node-a", "pod_uid": "told"}, True, "told"),
        ({"state": "error"}, False, ""),
    ],
)
async def test_a_pod_that_is_made(
    database: Database, fields: dict[str, str], wanted: bool, uid: str
) -> None:
    await store(database, made := row(**{**RESTORE, **fields}))
    async with database.write() as session:
        assert await pods.made(session, made.action_id, "new") is wanted
    async with database.read() as session:
        again = await table.get(session, made.action_id)
    assert again is not None
    assert again.pod_uid == uid
