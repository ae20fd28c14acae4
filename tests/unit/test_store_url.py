"""Which URLs mean which store, and which are refused without repeating what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import InvalidArgument
from agent.store import checkpoint_path, open_checkpoint, open_store
from agent.store.file import FileStore
from agent.store.memory import MemoryStore
from agent.store.object import ObjectStore
from tests.servers.s3 import forget_s3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///var/checkpoints", "file:///var/checkpoints"),
        ("file:///var/checkpoints/", "file:///var/checkpoints"),
        ("file://localhost/var/x", "file:///var/x"),
        ("/var/checkpoints", "file:///var/checkpoints"),
        ("/var/../srv/./x/", "file:///srv/x"),
        ("/odd/a b?c#d%e", "file:///odd/a%20b%3Fc%23d%25e"),
        ("file:///odd/a%20b%3Fc", "file:///odd/a%20b%3Fc"),
        ("memory://scratch", "memory://scratch"),
    ],
)
def test_addresses(url: str, expected: str) -> None:
    store = open_store(url)
    assert store.url == expected
    assert open_store(store.url).url == expected


def test_a_relative_path_means_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("var/checkpoints")
    monkeypatch.chdir("/")
    store.put("c1/a", b"a")
    assert (tmp_path / "var/checkpoints/c1/a").read_bytes() == b"a"


def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_s3(monkeypatch)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    assert isinstance(open_store("/x"), FileStore)
    assert isinstance(open_store("memory://x"), MemoryStore)
    assert open_store("memory://x") is open_store("memory://x")
    for url in ("s3://bucket", "s3://bucket/a/b", "gs://bucket/a", "az://container/a"):
        store = open_store(url)
        assert isinstance(store, ObjectStore)
        assert store.url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "\0",
        "/a\0b",
        "file://host/x",
        "file:relative",
        "file:///x?y",
        "file:///x%00",
        "memory://",
        "memory://a/b",
        "memory://..",
        "memory://a?b=c",
        "s3://",
        "s3:bucket",
        "s3:///prefix",
        "s3://bad bucket/x",
        "s3://bucket/a/../b",
        "s3://bucket/a//b",
        "s3://bucket#fragment",
        "s3://bucket?path_style=maybe",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=host:80",
        "gs://bucket?endpoint=http://host",
        "http://host/x",
        "ftp://host/x",
        "s3://[bad/x",
    ],
)
def test_unusable_urls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_s3(monkeypatch)
    with pytest.raises(InvalidArgument):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:s3cr3t@bucket/x",
        "s3://bucket?secret_access_key=s3cr3t",
        "s3://bucket?endpoint=http://key:s3cr3t@host",
        "http://user:s3cr3t@host/x",
        "gs://bucket?token=s3cr3t",
    ],
)
def test_secrets_in_urls_are_refused_and_not_repeated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_s3(monkeypatch)
    for refuse in (open_store, open_checkpoint):
        with pytest.raises(InvalidArgument) as caught:
            refuse(url)
        assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "url", "name"),
    [
        ("file:///var/checkpoints/c1", "file:///var/checkpoints", "c1"),
        ("/var/checkpoints/c1", "file:///var/checkpoints", "c1"),
        ("/var/checkpoints/c1/", "file:///var/checkpoints", "c1"),
        ("/c1", "file:///", "c1"),
        ("file:///odd%20place/c1", "file:///odd%20place", "c1"),
        ("memory://scratch/c1", "memory://scratch", "c1"),
        ("s3://bucket/c1", "s3://bucket", "c1"),
        ("s3://bucket/a/b/c1", "s3://bucket/a/b", "c1"),
        (
            "s3://bucket/a/c1?endpoint=http://127.0.0.1:9000&region=here",
            "s3://bucket/a?endpoint=http://127.0.0.1:9000&region=here",
            "c1",
        ),
    ],
)
def test_paths_of_checkpoints(
    path: str, url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_s3(monkeypatch)
    store, found = open_checkpoint(path)
    assert (store.url, found) == (url, name)
    again, found = open_checkpoint(checkpoint_path(store, name))
    assert (again.url, found) == (url, name)


@pytest.mark.parametrize(
    "path",
    ["", "/", "s3://bucket", "s3://bucket/", "memory://x", "/x/.hidden", "/x/a b", "/x/a%2fb"],
)
def test_paths_without_a_checkpoint(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_s3(monkeypatch)
    with pytest.raises(InvalidArgument):
        open_checkpoint(path)


def test_encoded_slashes_are_no_way_up(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_s3(monkeypatch)
    for path in ("file:///x/..%2fetc", "s3://bucket/..%2fx", "file:///x/%2e%2e"):
        with pytest.raises(InvalidArgument):
            open_checkpoint(path)
