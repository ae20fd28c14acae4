"""Which heartbeats are deleted: never the newest, never what is not a heartbeat of the same pod."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import retention
from agent.catalog import list_checkpoints
from agent.errors import CheckpointCorrupt, CheckpointNotFound, StoreFailed
from agent.manifest import MANIFEST, Pod, to_bytes
from agent.operation.recovery import recover
from agent.retention import Owner, being_restored, new_id, row
from agent.store.file import FileStore
from agent.store.memory import MemoryStore
from tests.checkpoints import flip, member, write_checkpoint

WEB = Owner("prod", "default", "web", None)
START = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE = write_checkpoint(MemoryStore("template"), {"core-1.img": b"core"})
STORES = count()


def store() -> MemoryStore:
    return MemoryStore(f"retention-{next(STORES)}")


def put(
    to: MemoryStore | FileStore,
    made: float,
    owner: Owner = WEB,
    *,
    checkpoint_id: str | None = None,
    uid: str = "u-1",
    reason: Literal["manual", "heartbeat"] = "heartbeat",
    created_at: str | None = None,
    members: tuple[str, ...] = ("app",),
) -> str:
    """A checkpoint as an agent of that owner's node writes it; its id."""
    checkpoint_id = checkpoint_id or new_id(owner)
    manifest = TEMPLATE.model_copy(
        update={
            "checkpoint_id": checkpoint_id,
            "name": owner.checkpoint_name,
            "pod": Pod(uid=uid, namespace=owner.namespace, name=owner.pod),
            "reason": reason,
            "members": [member(name, []) for name in members],
            "created_at": created_at or (START + timedelta(seconds=made)).isoformat(),
        }
    )
    to.put(f"{checkpoint_id}/stream-000", b"")
    to.put(f"{checkpoint_id}/{MANIFEST}", to_bytes(manifest))
    return checkpoint_id


def surplus(there: MemoryStore | FileStore, newest: str, keep: int) -> list[str]:
    """What goes after ``newest`` was made."""
    found = row(there, newest)
    return found.surplus(keep) if found is not None else []


def test_an_id_is_a_uuid_that_tells_whose_it_is_and_nothing_else() -> None:
    ids = {new_id(WEB) for _ in range(100)}
    assert len(ids) == 100
    assert {uuid.UUID(each).version for each in ids} == {8}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
    assert len({each[:19] for each in ids}) == 1
    others = [
        Owner("test", "default", "web", None),
        Owner("prod", "other", "web", None),
        Owner("prod", "default", "web-1", None),
        Owner("prod", "default", "web", "nightly"),
        Owner("prod", "defaultweb", "", None),
    ]
    assert len({new_id(owner)[:19] for owner in [WEB, *others]}) == 6


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_the_newest_stay_by_time_and_then_by_id_whatever_their_names(
    times: list[int], keep: int, data: st.DataObject
) -> None:
    there = store()
    made = {put(there, at, uid=f"u-{number}"): at for number, at in enumerate(times)}
    order = sorted(made, key=lambda name: (made[name], name))
    newest = data.draw(st.sampled_from(order))
    # What claims to be newer than the one just made is counted, and is left alone.
    expected = [name for name in order[:-keep] if order.index(name) < order.index(newest)]
    assert surplus(there, newest, keep) == expected
    assert newest not in expected


def test_only_heartbeats_of_the_same_pod_count(tmp_path: Path) -> None:
    there = FileStore(tmp_path)
    by_hand = put(there, 0, reason="manual", checkpoint_id=str(uuid.uuid4()))
    # As nobody writes it: an id of this pod's, and a manifest that says otherwise.
    disguised = put(there, 1, reason="manual")
    foreign = put(there, 2, Owner("prod", "other", "db", None), checkpoint_id=new_id(WEB))
    elsewhere = put(there, 3, Owner("other cluster", "default", "web", None))
    named = put(there, 4, Owner("prod", "default", "web", "nightly"))
    damaged, undated = put(there, 5), put(there, 6, created_at="yesterday")
    naive = put(there, 6.5, created_at="2025-01-01T00:00:00")
    path = tmp_path / damaged / MANIFEST
    path.write_bytes(path.read_bytes()[:-5])
    unfinished = new_id(WEB)
    there.put(f"{unfinished}/stream-000", b"")
    old, newest = put(there, 7, uid="an earlier pod's"), put(there, 8)

    assert surplus(there, newest, 1) == [old]
    retention.delete(there, old, tmp_path / "state")
    left = {each.checkpoint_id for each in list_checkpoints(there)}
    kept = {by_hand, disguised, foreign, elsewhere, named, damaged, undated, naive, newest}
    assert left == kept
    assert not (tmp_path / old).exists()
    assert (tmp_path / unfinished).exists()
    assert not list((tmp_path / "state/operations").iterdir())


# Of a pod's two containers, those that were up when a heartbeat was made.
WHOLE, SIDECAR, APP = ("app", "sidecar"), ("sidecar",), ("app",)


@pytest.mark.parametrize(
    ("order", "gone"),
    [
        ([WHOLE, WHOLE, SIDECAR, SIDECAR], []),
        ([WHOLE, WHOLE, SIDECAR, SIDECAR, SIDECAR], [2]),
        ([WHOLE, WHOLE, SIDECAR, APP, SIDECAR, APP, SIDECAR], [2]),
        # A whole one counts for those of a part, and for the whole ones with its like only.
        ([WHOLE, WHOLE, SIDECAR, SIDECAR, WHOLE], [0, 2]),
        ([WHOLE, WHOLE, SIDECAR, SIDECAR, WHOLE, WHOLE], [0, 1, 2, 3]),
        # What could not be deleted at its time is at the next.
        ([WHOLE, WHOLE, WHOLE, SIDECAR], [0]),
    ],
)
def test_only_what_has_all_of_its_members_replaces_one(
    order: list[tuple[str, ...]], gone: list[int]
) -> None:
    there = store()
    made = [put(there, at, members=members) for at, members in enumerate(order)]
    assert surplus(there, made[-1], 2) == [made[at] for at in gone]


def test_no_number_deletes_everything() -> None:
    there = store()
    put(there, 1)
    newest = put(there, 2)
    assert surplus(there, newest, 0) == []


def test_what_was_made_by_hand_deletes_nothing() -> None:
    there = store()
    put(there, 1)
    by_hand = put(there, 2, reason="manual", checkpoint_id=str(uuid.uuid4()))
    disguised = put(there, 3, reason="manual")
    assert surplus(there, by_hand, 1) == []
    assert surplus(there, disguised, 1) == []


def test_the_newest_has_to_be_there() -> None:
    there = store()
    old, newest = put(there, 1), put(there, 2)
    flip(there, f"{newest}/{MANIFEST}", -5)
    with pytest.raises(CheckpointCorrupt):
        surplus(there, newest, 1)
    with pytest.raises(CheckpointNotFound):
        surplus(there, new_id(WEB), 1)
    assert old in there.directories()


async def test_a_deletion_that_failed_half_way_is_completed(tmp_path: Path) -> None:
    class Failing(FileStore):
        def delete(self, path: str) -> None:
            if "stream" in path:
                raise StoreFailed("delete", self.url, "connection lost")
            super().delete(path)

    there, state = Failing(tmp_path / "store"), tmp_path / "state"
    name = put(there, 1)
    with pytest.raises(StoreFailed):
        retention.delete(there, name, state)
    assert list_checkpoints(there) == []
    assert there.list(name) != []

    (recovered,) = await recover(tools=lambda: pytest.fail("no program is needed"), state_dir=state)
    assert (recovered.kind, recovered.removed, recovered.problem) == ("delete", True, None)
    assert there.list(name) == []
    assert not list((state / "operations").iterdir())


async def test_a_deletion_that_had_not_begun_leaves_the_checkpoint(tmp_path: Path) -> None:
    class Failing(FileStore):
        def delete(self, path: str) -> None:
            raise StoreFailed("delete", self.url, "connection lost")

    there, state = Failing(tmp_path / "store"), tmp_path / "state"
    name = put(there, 1)
    with pytest.raises(StoreFailed):
        retention.delete(there, name, state)
    (recovered,) = await recover(tools=lambda: pytest.fail("no program is needed"), state_dir=state)
    assert not recovered.removed
    assert [each.checkpoint_id for each in list_checkpoints(there)] == [name]


def test_what_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound):
        retention.delete(store(), new_id(WEB), tmp_path)
    assert not list((tmp_path / "operations").iterdir())
    assert list(being_restored(tmp_path)) == []
