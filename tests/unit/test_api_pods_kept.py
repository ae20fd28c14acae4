"""Pods in the API's database: what is kept of them, and restores that wait for one."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect

from agent.api.answers import action
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


async def test_lists_are_read_without_what_was_uploaded(database: Database) -> None:
    """Each may have megabytes of it, and a list has a thousand."""
    made = row(**RESTORE, created=1, updated=1, upload={"pod_spec": {"a": 1}})
    await store(database, made)
    async with database.read() as session:
        rows = [
            *await table.newest(session, table.Wanted()),
            *await table.unheard_of(session, 2, 10),
            *await pods.waiting(session),
        ]
    assert [each.action_id for each in rows] == [made.action_id] * 3
    assert all("upload" in inspect(each).unloaded for each in rows)
    assert action(rows[0]).action_id == made.action_id


@pytest.mark.parametrize(
    ("fields", "wanted", "uid"),
    [
        ({}, True, "new"),
        # A node was quicker than the answer of the cluster: nobody may delete the pod now.
        ({"state": "ready", "node": "node-a", "pod_uid": "new"}, True, "new"),
        ({"state": "processing", "node": "node-a", "pod_uid": "new"}, True, "new"),
        ({"state": "error", "node": "node-a", "pod_uid": "new"}, True, "new"),
        ({"state": "processing", "node": "node-a"}, True, ""),
        ({"state": "error"}, False, ""),
        # Another one was made for it before, and is gone: this one is one too many.
        ({"state": "ready", "node": "node-a", "pod_uid": "first"}, False, "first"),
        ({"pod_uid": "first"}, False, "first"),
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
