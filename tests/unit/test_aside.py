"""What is put aside comes back as it was, whatever has been put in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.host import aside, mounting
from agent.host.mounts import detach_below


def _facts(directory: Path) -> dict[str, tuple[int, str]]:
    found = {".": (directory.stat().st_mode, "")}
    for path in sorted(directory.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = path.read_text()
        found[str(path.relative_to(directory))] = (path.lstat().st_mode, content)
    return found


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A directory with everything in it that may be in the way."""
    made = tmp_path / "volume"
    (made / "deep" / "deeper").mkdir(parents=True)
    (made / "deep" / "deeper" / "file").write_text("old")
    (made / ".hidden").write_text("hidden")
    (made / "link").symlink_to("/etc/passwd")
    made.chmod(0o1777)
    return made


def test_back_as_it_was(volume: Path) -> None:
    before = _facts(volume)
    aside.put(volume)
    assert os.listdir(volume) == [aside.NAME]
    (volume / "new").mkdir()
    (volume / "new" / "file").write_text("new")
    (volume / "link").symlink_to("/etc")
    volume.chmod(0o700)
    aside.put_back(volume)
    assert _facts(volume) == before
    aside.put_back(volume)
    assert _facts(volume) == before


def test_what_is_kept(volume: Path) -> None:
    aside.put(volume)
    (volume / "new").write_text("new")
    aside.forget(volume)
    assert os.listdir(volume) == ["new"]
    aside.forget(volume)


def test_an_earlier_try_is_undone_first(volume: Path) -> None:
    before = _facts(volume)
    aside.put(volume)
    (volume / "half").write_text("half")
    aside.put(volume)
    aside.put_back(volume)
    assert _facts(volume) == before


def test_what_somebody_who_was_killed_has_put_aside(volume: Path) -> None:
    before = _facts(volume)
    aside.recover(volume)
    assert _facts(volume) == before
    aside.put(volume)
    (volume / "half").write_text("half")
    aside.recover(volume)
    assert _facts(volume) == before
    # On its way there.
    (volume / aside.PARTIAL).mkdir(mode=0o700)
    (volume / "deep").rename(volume / aside.PARTIAL / "deep")
    aside.recover(volume)
    assert _facts(volume) == before


@pytest.mark.parametrize("name", [aside.NAME, aside.PARTIAL])
def test_what_only_has_its_name(volume: Path, name: str) -> None:
    """A container may call its files as it likes, and is not to be kept from its start."""
    (volume / name).write_text("a stranger's")
    before = _facts(volume)
    aside.recover(volume)
    assert _facts(volume) == before
    (volume / name).unlink()
    (volume / name).symlink_to("/tmp")
    aside.recover(volume)
    assert (volume / name).is_symlink()
    aside.recover(volume / "not there")


@contextmanager
def _unmovable(volume: Path, path: Path) -> Iterator[None]:
    """A file that is a mount point, which nobody can move: what stops half-way, as a kill would."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path.touch()
    at = os.fsencode(path)
    mounting.mount(at, at, b"", mounting.BIND)
    try:
        yield
    finally:
        # The directory that it is in may have been moved.
        assert detach_below(volume)


@pytest.mark.root
def test_half_put_aside(volume: Path) -> None:
    """What is not aside yet is not in the place of anything."""
    (volume / "held").write_text("held")
    before = _facts(volume)
    with _unmovable(volume, volume / "held"), pytest.raises(OSError, match="busy"):
        aside.put(volume)
    aside.put_back(volume)
    assert _facts(volume) == before


@pytest.mark.root
def test_half_put_back(volume: Path) -> None:
    (volume / "held").write_text("held")
    before = _facts(volume)
    aside.put(volume)
    (volume / "new").write_text("new")
    volume.chmod(0o700)
    held = volume / aside.NAME / "held"
    with _unmovable(volume, held), pytest.raises(OSError, match="busy"):
        aside.put_back(volume)
    aside.put_back(volume)
    assert _facts(volume) == before


def test_killed_before_it_began(volume: Path) -> None:
    before = _facts(volume)
    (volume / aside.PARTIAL).mkdir(mode=0o700)
    aside.put_back(volume)
    assert _facts(volume) == before


def test_no_link_is_followed(volume: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    (volume / aside.NAME).symlink_to(outside)
    for work in (aside.put, aside.put_back):
        with pytest.raises(OSError, match=r"directory|symbolic"):
            work(volume)
    aside.forget(volume)
    assert (outside / "file").read_text() == "outside"
    # Nor one that what is to be removed has in it.
    (volume / aside.NAME).unlink()
    aside.put(volume)
    (volume / "new").mkdir()
    (volume / "new" / "link").symlink_to(outside)
    aside.put_back(volume)
    assert (outside / "file").read_text() == "outside"
