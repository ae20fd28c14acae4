"""Which bundle a container comes back from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import BundleInvalid
from agent.restore.bundle import find_bundle

SAVED = json.dumps({"root": {"path": "rootfs", "readonly": True}, "hostname": "saved"}).encode()


def make(bundle: Path, root: str = "rootfs") -> Path:
    """A bundle with a root filesystem beside its configuration."""
    (bundle / "rootfs").mkdir(parents=True)
    (bundle / "config.json").write_text(json.dumps({"root": {"path": root}}))
    return bundle


def test_the_one_that_is_given(tmp_path: Path) -> None:
    given, recorded = make(tmp_path / "given"), make(tmp_path / "recorded")

    assert find_bundle(given, str(recorded), SAVED, tmp_path / "home") == given


def test_as_a_path_that_works_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "given")
    monkeypatch.chdir(tmp_path)

    assert find_bundle(Path("given"), None, None, tmp_path / "home") == tmp_path / "given"


def test_the_one_it_had(tmp_path: Path) -> None:
    recorded = make(tmp_path / "recorded")

    assert find_bundle(None, str(recorded), SAVED, tmp_path / "home") == recorded
    assert not (tmp_path / "home").exists()


def test_one_made_from_what_was_saved(tmp_path: Path) -> None:
    """Its configuration is gone, its root filesystem is not."""
    recorded = make(tmp_path / "recorded")
    (recorded / "config.json").unlink()
    home = tmp_path / "state" / "bundle"

    assert find_bundle(None, str(recorded), SAVED, home) == home

    config = json.loads((home / "config.json").read_text())
    assert config["hostname"] == "saved"
    assert config["root"] == {"path": str(recorded / "rootfs"), "readonly": True}


def test_a_root_filesystem_with_an_absolute_path(tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    root.mkdir()
    bundle = make(tmp_path / "bundle", str(root))

    assert find_bundle(bundle, None, None, tmp_path / "home") == bundle


@pytest.mark.parametrize("spoil", ["no directory", "no config", "no root filesystem", "no JSON"])
def test_one_that_cannot_be_used(tmp_path: Path, spoil: str) -> None:
    bundle = tmp_path / "bundle"
    if spoil != "no directory":
        make(bundle)
    if spoil == "no config":
        (bundle / "config.json").unlink()
    if spoil == "no root filesystem":
        (bundle / "rootfs").rmdir()
    if spoil == "no JSON":
        (bundle / "config.json").write_text("{")

    with pytest.raises(BundleInvalid) as caught:
        find_bundle(bundle, None, SAVED, tmp_path / "home")

    assert caught.value.bundle == str(bundle)
    assert not (tmp_path / "home").exists()


def test_none_at_all(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")

    with pytest.raises(BundleInvalid, match="the checkpoint carries no copy"):
        find_bundle(None, gone, None, tmp_path / "home")
    with pytest.raises(BundleInvalid, match=r"its root filesystem .* is not there"):
        find_bundle(None, gone, SAVED, tmp_path / "home")
    # That of an import names a directory of another machine, or of this one, on purpose.
    with pytest.raises(BundleInvalid, match="imported"):
        find_bundle(None, None, b'{"root": {"path": "/"}}', tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "saved", [b"", b"{", b"[]", b"null", b"{}", b'{"root": null}', b'{"root": {}}', b"\xff"]
)
def test_a_saved_configuration_that_is_none(tmp_path: Path, saved: bytes) -> None:
    """It comes from the store, and so perhaps from somebody else."""
    with pytest.raises(BundleInvalid):
        find_bundle(None, str(tmp_path / "gone"), saved, tmp_path / "home")
    assert not (tmp_path / "home").exists()
