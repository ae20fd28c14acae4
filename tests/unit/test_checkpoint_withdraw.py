"""What a failed checkpoint left in its store: gone, or written down until it can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.catalog import list_checkpoints
from agent.checkpoint.commit import withdraw
from agent.config import Tools
from agent.errors import StoreFailed
from agent.manifest import MANIFEST
from agent.operation import journal
from agent.operation.recovery import recover
from agent.store.file import FileStore
from tests.archives import archive, imported
from tests.checkpoints import ID, write_checkpoint


class Away(FileStore):
    """A store that lets nothing be removed, or no more than an object at a time."""

    def __init__(self, root: Path, *, whole: bool = True) -> None:
        super().__init__(root)
        self._whole = whole

    def delete(self, path: str) -> None:
        if self._whole:
            raise StoreFailed("delete", self.url, "away")
        super().delete(path)

    def discard(self, directory: str) -> None:
        raise StoreFailed("delete", self.url, "away")


def no_tools() -> Tools:
    raise AssertionError


def operations(state_dir: Path) -> list[str]:
    return os.listdir(state_dir / "operations") if state_dir.exists() else []


def test_nothing_is_left(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    write_checkpoint(store, {"pages-1.img": bytes(100)})
    withdraw(store, ID, tmp_path / "state")
    assert store.list("") == []
    assert operations(tmp_path / "state") == []


def test_nothing_there_is_no_failure(tmp_path: Path) -> None:
    withdraw(FileStore(tmp_path / "store"), ID, tmp_path / "state")
    assert operations(tmp_path / "state") == []


async def test_it_exists_no_more_when_the_rest_cannot_be_removed(tmp_path: Path) -> None:
    """A manifest whose answer was lost must not name streams that are gone."""
    store = Away(tmp_path / "store", whole=False)
    write_checkpoint(store, {"pages-1.img": bytes(100)})
    withdraw(store, ID, tmp_path / "state")
    assert list_checkpoints(store) == []
    assert all(MANIFEST not in found.path for found in store.list(""))
    assert store.list("") != []

    [found] = await recover(tools=no_tools, state_dir=tmp_path / "state")

    assert (found.removed, found.problem) == (True, None)
    assert store.list("") == []
    assert operations(tmp_path / "state") == []


def test_with_no_place_to_write_it_down_it_does_not_fail(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    withdraw(Away(tmp_path / "store"), ID, tmp_path / "state")


async def test_an_import_whose_store_goes_away(tmp_path: Path) -> None:
    class Going(Away):
        def put(self, path: str, data: object) -> None:
            raise StoreFailed("write", self.url, "away")

    store = Going(tmp_path / "store")
    with pytest.raises(StoreFailed, match=r"write .*: away"):
        await imported(store, archive(), tmp_path)
    assert store.list("") != []
    [record] = journal.records(tmp_path / "state")
    # Nobody is thawed because of it: whoever runs then has nothing to do with it.
    assert (record.kind, record.affected) == ("delete", ())

    [found] = await recover(tools=no_tools, state_dir=tmp_path / "state")

    assert found.removed
    assert store.list("") == []
