"""Operations on disk: whose they are, and what is found when their process is gone."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import StoreFailed
from agent.operation.journal import Affected, Record, abandoned, begin, exclusive, new_id
from tests.other_agents import child, kill
from tests.waiting import descriptors, opened_since

RECORD = Record(
    kind="checkpoint",
    operation="20250102-030405-0123456789",
    checkpoint_id="20250102-030405-0123456789",
    store="file:///store",
    target="container 'web'",
    affected=(
        Affected("web", "/run/runc", "/sys/fs/cgroup/freezer/web", 1),
        Affected("db", "/run/runc", "/sys/fs/cgroup/freezer/db", 1, (4711, 99)),
    ),
)


def record(operation: str) -> Record:
    """A record of an operation with that id."""
    return Record("restore", operation, "c", "memory://x", "process 7", (Affected(),))


BEGIN = (
    "o = begin(state, Record('restore', 'theirs', 'c', 'memory://x', 'process 7', (Affected(),)))"
)


def test_ids_sort_by_time_and_are_fit_for_paths() -> None:
    ids = [new_id() for _ in range(100)]

    assert len(set(ids)) == 100
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{10}", each) for each in ids)
    assert [each[:15] for each in ids] == sorted(each[:15] for each in ids)


def test_an_operation_is_on_disk_when_it_begins(tmp_path: Path) -> None:
    operation = begin(tmp_path / "state", RECORD)

    assert operation.directory == tmp_path / "state" / "operations" / RECORD.operation
    written = json.loads((operation.directory / "record.json").read_text())
    assert [each["container"] for each in written["affected"]] == ["web", "db"]
    assert operation.images.is_dir()
    assert operation.work.is_dir()
    assert not operation.launcher.exists()
    for path in (tmp_path / "state" / "operations", operation.directory, operation.images):
        assert path.stat().st_mode & 0o777 == 0o700
    operation.remove()


def test_and_gone_when_it_is_removed(tmp_path: Path) -> None:
    before = descriptors()
    operation = begin(tmp_path, RECORD)
    (operation.images / "pages-1.img").write_bytes(b"x")

    operation.remove()

    assert list((tmp_path / "operations").iterdir()) == []
    assert opened_since(before) == {}


def test_own_operations_are_not_abandoned(tmp_path: Path) -> None:
    operation = begin(tmp_path, RECORD)

    assert abandoned(tmp_path) == []
    operation.remove()


def test_nothing_to_be_found(tmp_path: Path) -> None:
    assert abandoned(tmp_path / "never") == []
    begin(tmp_path, RECORD).remove()
    assert abandoned(tmp_path) == []


def test_operations_of_the_living_are_left_alone_and_those_of_the_dead_found(
    tmp_path: Path,
) -> None:
    before = descriptors()
    with child(tmp_path, BEGIN) as other:
        assert abandoned(tmp_path) == []

        kill(other)

        [(found, operation)] = abandoned(tmp_path)
        assert found == record("theirs")
        assert operation.directory == tmp_path / "operations" / "theirs"
        # Locked for the caller: nobody else finds it meanwhile.
        assert abandoned(tmp_path) == []
        operation.remove()
    assert abandoned(tmp_path) == []
    assert opened_since(before) == {}


def test_an_orphan_that_inherited_the_lock_still_works_on_it(tmp_path: Path) -> None:
    """runc goes on rolling back when the agent is killed; nobody cleans up under it."""
    program = (
        f"{BEGIN}; import subprocess; "
        "p = subprocess.Popen(['sleep', '1000'], stdout=subprocess.DEVNULL, pass_fds=[o.lock]); "
        "(state / 'pid').write_text(str(p.pid))"
    )
    with child(tmp_path, program) as other:
        orphan = int((tmp_path / "pid").read_text())
        descriptor = os.pidfd_open(orphan)
        kill(other)
        try:
            assert abandoned(tmp_path) == []
        finally:
            os.kill(orphan, signal.SIGKILL)
        _wait(descriptor)

        [(found, operation)] = abandoned(tmp_path)
        assert found == record("theirs")
        operation.remove()


def _wait(pidfd: int) -> None:
    """Wait for the end of a process that is not a child."""
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)


def test_dead_operations_come_oldest_first(tmp_path: Path) -> None:
    ids = ["20250103-000000-a", "20250101-000000-b", "20250102-000000-c"]
    for each in ids:
        os.close(begin(tmp_path, record(each)).lock)

    found = abandoned(tmp_path)

    assert [each.operation for each, _ in found if each] == sorted(ids)
    for _, operation in found:
        operation.remove()


@pytest.mark.parametrize(
    "text",
    [None, "", '{"kind": "checkpo', "[]", "null", "7", "{}", '{"kind": "checkpoint"}', "\xff"],
)
def test_a_record_that_was_never_completed(tmp_path: Path, text: str | None) -> None:
    """Then nothing had been touched: the directory alone is what is left."""
    operation = begin(tmp_path, RECORD)
    path = operation.directory / "record.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text, encoding="latin-1")
    os.close(operation.lock)

    [(found, left)] = abandoned(tmp_path)

    assert found is None
    left.remove()
    assert abandoned(tmp_path) == []


def test_a_record_of_an_older_agent(tmp_path: Path) -> None:
    """Then there was one container, and it stood in the record itself."""
    operation = begin(tmp_path, RECORD)
    old = {name: getattr(RECORD, name) for name in ("kind", "operation", "checkpoint_id", "store")}
    old |= {"target": "container 'web'", "container": "web", "runc_root": "/run/runc"}
    old |= {"freezer": "/sys/fs/cgroup/freezer/web", "freezer_version": 1}
    (operation.directory / "record.json").write_text(json.dumps(old))
    os.close(operation.lock)

    [(found, left)] = abandoned(tmp_path)

    assert found == replace(RECORD, affected=RECORD.affected[:1])
    left.remove()


def test_a_record_of_a_newer_agent(tmp_path: Path) -> None:
    """What it says more means nothing to this one."""
    operation = begin(tmp_path, RECORD)
    path = operation.directory / "record.json"
    new = json.loads(path.read_text()) | {"reason": "later"}
    new["affected"][0] |= {"devices": []}
    path.write_text(json.dumps(new))
    os.close(operation.lock)

    [(found, left)] = abandoned(tmp_path)

    assert found == RECORD
    left.remove()


def test_every_member_has_directories_of_its_own(tmp_path: Path) -> None:
    operation = begin(tmp_path, RECORD)

    places = operation.workplaces(3)

    assert len({place.images for place in places}) == 3
    assert all(place.images.is_dir() and place.work.is_dir() for place in places)
    assert places[0].directory == operation.directory
    found = operation.found_workplaces()
    assert [place.directory for place in found] == [place.directory for place in places]
    operation.remove()
    assert list((tmp_path / "operations").iterdir()) == []


def test_what_is_no_operation_is_passed_over(tmp_path: Path) -> None:
    os.close(begin(tmp_path, RECORD).lock)
    (tmp_path / "operations" / "a file").write_text("")
    # As one that vanishes between being listed and being looked at.
    (tmp_path / "operations" / "gone").symlink_to("nowhere")

    [(found, operation)] = abandoned(tmp_path)

    assert found == RECORD
    operation.remove()


def test_the_same_operation_cannot_begin_twice(tmp_path: Path) -> None:
    before = descriptors()
    operation = begin(tmp_path, RECORD)

    with pytest.raises(StoreFailed, match="File exists"):
        begin(tmp_path, RECORD)

    assert operation.images.is_dir()
    operation.remove()
    assert opened_since(before) == {}


def test_a_state_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreFailed, match="Not a directory"):
        begin(tmp_path / "file" / "state", RECORD)
    with pytest.raises(StoreFailed, match="Not a directory"), exclusive(tmp_path / "file", "web"):
        pass


def test_a_disk_without_room_for_the_record(tmp_path: Path) -> None:
    before = descriptors()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        with pytest.raises(StoreFailed, match="File too large"):
            begin(tmp_path, RECORD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    assert list((tmp_path / "operations").iterdir()) == []
    assert opened_since(before) == {}


def test_what_waits_is_remembered_or_an_error_says_so(tmp_path: Path) -> None:
    operation = begin(tmp_path, RECORD)
    seen = []
    for waiting in (True, False, False):
        operation.note_waiting(waiting)
        seen.append(operation.is_waiting)
    assert seen == [True, False, False]
    operation.remove()
    with pytest.raises(StoreFailed):
        operation.note_waiting(True)
