"""Which stores a request may name: nothing gets out of the roots that are configured."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.actions.places import allowed_checkpoint, allowed_store
from agent.errors import InvalidArgument
from agent.settings import Storage

FIELD = "checkpoint.overrides.directory"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(
        store=str(tmp_path / "store"),
        roots=(str(tmp_path / "more"), "s3://bucket/prefix?endpoint=http://here:1", "memory://m"),
    )


def test_without_one_it_is_the_nodes_own(storage: Storage) -> None:
    assert allowed_store(None, storage, FIELD).url == f"file://{storage.store}"


@pytest.mark.parametrize("below", ["", "/", "/a", "/a/b", "/a/../b", "/./a"])
def test_at_or_below_a_root_is_allowed(storage: Storage, tmp_path: Path, below: str) -> None:
    for root in (tmp_path / "store", tmp_path / "more"):
        allowed_store(f"{root}{below}", storage, FIELD)
        allowed_store(f"file://{root}{below}", storage, FIELD)


@pytest.mark.parametrize(
    "url",
    [
        "/", "/etc", "file:///etc", "{tmp}", "{tmp}/storehouse", "{tmp}/store/../other",
        "{tmp}/more/../../etc", "file://{tmp}/store/%2e%2e/other", "memory://other",
        "s3://bucket?endpoint=http://here:1", "s3://bucket/prefixed?endpoint=http://here:1",
        "s3://other/prefix?endpoint=http://here:1", "s3://bucket/prefix",
        "s3://bucket/prefix?endpoint=http://elsewhere:1", "gs://bucket/prefix",
        "s3://bucket/prefix/../x?endpoint=http://here:1",
        "s3://bucket/x/../prefix?endpoint=http://here:1",
        "s3://bucket/prefix/%2e%2e/x?endpoint=http://here:1", "ftp://bucket", "{tmp}/store\0/x",
        "file://elsewhere/{tmp}/store",
    ],
)  # fmt: skip
def test_everything_else_is_refused(storage: Storage, tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        allowed_store(url.format(tmp=tmp_path), storage, FIELD)
    assert caught.value.argument == FIELD


def test_object_stores_are_compared_by_components(storage: Storage) -> None:
    for url in ("s3://bucket/prefix", "s3://bucket/prefix/", "s3://bucket/prefix/a/b"):
        allowed_store(f"{url}?endpoint=http://here:1", storage, FIELD)
    allowed_store("memory://m", storage, FIELD)


def test_a_link_is_where_it_leads(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "out").symlink_to("/etc")
    (tmp_path / "in").symlink_to(tmp_path / "store")
    allowed_store(str(tmp_path / "in" / "a"), storage, FIELD)
    with pytest.raises(InvalidArgument):
        allowed_store(str(tmp_path / "store" / "out"), storage, FIELD)
    with pytest.raises(InvalidArgument):
        allowed_store(str(tmp_path / "store" / "out" / "not-yet-there"), storage, FIELD)


def test_a_root_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    storage = Storage(store=str(tmp_path / "store"))
    allowed_store(str(tmp_path / "store" / "a"), storage, FIELD)
    allowed_store(str(tmp_path / "disk" / "a"), storage, FIELD)


def test_a_checkpoint_lies_in_an_allowed_store(storage: Storage, tmp_path: Path) -> None:
    store, name = allowed_checkpoint(f"{tmp_path}/store/id", storage, "restore.path")
    assert (store.url, name) == (f"file://{tmp_path}/store", "id")
    for wrong in ("", "/etc/id", f"{tmp_path}/id", f"{tmp_path}/store/../id", "memory://m"):
        with pytest.raises(InvalidArgument) as caught:
            allowed_checkpoint(wrong, storage, "restore.path")
        assert caught.value.argument == "restore.path"
