"""The journal: what it keeps, what it sends and in which order, and what it refuses to open."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.actions.book import SEQUENCE_GAP, Book
from agent.actions.rows import Attempt
from agent.actions.schema import STEPS
from agent.errors import ActionNotFound, AlreadyExists, FormatTooNew, InvalidArgument, StoreFailed
from agent.host.boot import Moment
from agent.messages.model import (
    ActionRequest,
    ActionType,
    CheckpointSpec,
    Event,
    Failure,
    Progress,
    State,
)
from agent.targets import PodRef

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def request(action_id: str = "a", pod: str = "web") -> ActionRequest:
    """A checkpoint of a pod."""
    return ActionRequest(action_id, CheckpointSpec(PodRef("", "default", pod)))


def event(state: State, action_id: str = "a", *, time: datetime = NOW) -> Event:
    """An event without a number yet."""
    failure = Failure("dump_failed", "it did not work") if state is State.ERROR else None
    return Event(action_id, 0, state, ActionType.CHECKPOINT, time, failure=failure)


def progress(phase: str, action_id: str = "a") -> Event:
    """A progress event."""
    return dataclasses.replace(event(State.PROCESSING, action_id), progress=Progress(phase))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "actions.db"


@pytest.fixture
def book(path: Path) -> Iterator[Book]:
    made = Book(path, cluster="c", node="n")
    yield made
    made.close()


def accepted(book: Book, action_id: str = "a") -> None:
    book.accept(request(action_id), event(State.INITIALIZED, action_id))


def sent(book: Book) -> list[tuple[str, int]]:
    """What waits in the outbox: ids and sequences."""
    return [(row.action_id, row.sequence) for row in book.outbox_next(1000)]


def test_an_action_comes_back_as_it_was(book: Book, path: Path) -> None:
    action, new = book.accept(request(), event(State.INITIALIZED))
    assert new
    assert action.event.sequence == 1
    book.advance(event(State.PROCESSING))
    book.close()
    again = Book(path, cluster="c", node="n")
    found = again.get("a")
    again.close()
    assert (found.request, found.accepted, found.state) == (request(), NOW, State.PROCESSING)
    assert found.event == dataclasses.replace(event(State.PROCESSING), sequence=2)


def test_the_payload_is_the_event_as_everybody_reads_it(book: Book) -> None:
    accepted(book)
    (row,) = book.outbox_next(10)
    document = json.loads(row.payload)
    assert document["actionId"] == "a"
    assert (document["cluster"], document["node"]) == ("c", "n")
    assert document["state"] == "initialized"
    assert document["sequence"] == "1"
    assert row.message_id == "a.1"


def test_the_same_request_is_the_same_action(book: Book) -> None:
    accepted(book)
    book.advance(event(State.PROCESSING))
    action, new = book.accept(request(), event(State.INITIALIZED))
    assert not new
    assert action.state is State.PROCESSING
    assert sent(book) == [("a", 1), ("a", 2)]


def test_another_request_under_the_same_id_is_refused(book: Book) -> None:
    accepted(book)
    with pytest.raises(AlreadyExists):
        book.accept(request(pod="other"), event(State.INITIALIZED))
    assert book.get("a").request == request()
    assert sent(book) == [("a", 1)]


def test_nothing_comes_after_the_end(book: Book) -> None:
    accepted(book)
    book.advance(event(State.ERROR))
    with pytest.raises(ValueError, match="has ended"):
        book.advance(event(State.READY))
    assert book.get("a").state is State.ERROR


def test_what_is_unknown_is_not_found(book: Book) -> None:
    with pytest.raises(ActionNotFound):
        book.get("a")
    with pytest.raises(ActionNotFound):
        book.advance(event(State.READY))


def test_only_the_newest_progress_waits(book: Book) -> None:
    accepted(book, "a")
    accepted(book, "b")
    book.advance(event(State.PROCESSING))
    for phase in ("dump", "drain", "store"):
        book.advance(progress(phase))
        book.advance(progress(phase, "b"))
    assert sent(book) == [("a", 1), ("b", 1), ("a", 2), ("a", 5), ("b", 4)]


def test_progress_that_was_overtaken_by_a_state_is_not_sent(book: Book) -> None:
    accepted(book)
    book.advance(progress("dump"))
    book.advance(event(State.READY))
    assert sent(book) == [("a", 1), ("a", 3)]


def test_confirming_progress_that_was_replaced_removes_nothing_else(book: Book) -> None:
    accepted(book)
    book.advance(progress("dump"))
    rows = book.outbox_next(10)
    book.advance(progress("drain"))
    assert book.outbox_confirm([row.id for row in rows]) == set()
    assert sent(book) == [("a", 3)]


def test_confirming_tells_whose_events_are_all_out(book: Book) -> None:
    accepted(book, "a")
    accepted(book, "b")
    book.advance(event(State.READY))
    first, second, third = book.outbox_next(10)
    assert book.outbox_confirm([first.id, second.id]) == {"b"}
    assert book.outbox_depth() == 1
    assert book.unsent("a")
    assert book.outbox_confirm([third.id]) == {"a"}
    assert not book.unsent("a")


def test_numbers_that_a_power_loss_may_take_are_never_given_twice(book: Book, path: Path) -> None:
    accepted(book, "a")
    accepted(book, "b")
    book.advance(event(State.ERROR, "b"))
    book.close()
    again = Book(path, cluster="c", node="n")
    assert again.advance(event(State.PROCESSING)).sequence == 2 + SEQUENCE_GAP
    assert again.get("b").event.sequence == 2
    again.close()


def test_open_actions_are_the_oldest_first_with_what_was_begun(book: Book) -> None:
    for action_id in ("a", "b", "c"):
        accepted(book, action_id)
    book.advance(event(State.READY, "b"))
    begun = Moment("this boot", 12.5)
    book.attempt("c", Attempt("id", "file:///store"), begun)
    left = book.open_actions()
    assert [each.action.action_id for each in left] == ["a", "c"]
    assert [each.attempt for each in left] == [None, Attempt("id", "file:///store")]
    assert [each.begun for each in left] == [None, begun]


def test_lists_the_newest_first_by_state(book: Book) -> None:
    for action_id in ("a", "b", "c"):
        accepted(book, action_id)
    book.advance(event(State.READY, "b"))
    assert [each.action_id for each in book.actions()] == ["c", "b", "a"]
    assert [each.action_id for each in book.actions(limit=2)] == ["c", "b"]
    assert [each.action_id for each in book.actions([State.INITIALIZED])] == ["c", "a"]
    assert [each.action_id for each in book.actions([State.READY, State.ERROR])] == ["b"]


def test_a_refusal_is_sent_before_all_numbers(book: Book) -> None:
    assert book.refuse(event(State.ERROR, "bad"))
    assert sent(book) == [("bad", 0)]
    with pytest.raises(ActionNotFound):
        book.get("bad")
    accepted(book, "bad")
    assert sent(book) == [("bad", 0), ("bad", 1)]


def test_a_refusal_leaves_an_action_of_that_id_alone(book: Book) -> None:
    accepted(book)
    assert not book.refuse(event(State.ERROR))
    assert sent(book) == [("a", 1)]


def test_without_a_broker_nothing_is_kept_for_it(tmp_path: Path) -> None:
    book = Book(tmp_path / "actions.db", cluster="c", node="n", publishing=False)
    accepted(book)
    book.advance(event(State.READY))
    assert book.outbox_depth() == 0
    assert book.get("a").state is State.READY
    book.close()


def test_forgets_what_ended_long_ago_and_was_sent(book: Book) -> None:
    old, new = NOW - timedelta(days=8), NOW
    for action_id, state, time in (
        ("old", State.READY, old),
        ("unsent", State.READY, old),
        ("open", State.PROCESSING, old),
        ("new", State.READY, new),
    ):
        accepted(book, action_id)
        book.advance(event(state, action_id, time=time))
    book.outbox_confirm(row.id for row in book.outbox_next(10) if row.action_id != "unsent")
    assert book.prune(NOW - timedelta(days=7), keep=100) == 1
    assert [each.action_id for each in book.actions()] == ["new", "open", "unsent"]


def test_forgets_the_oldest_when_there_are_too_many(book: Book) -> None:
    for number in range(6):
        accepted(book, str(number))
        if number:
            book.advance(event(State.READY, str(number)))
    book.outbox_confirm(row.id for row in book.outbox_next(100))
    assert book.prune(NOW - timedelta(days=7), keep=3) == 2
    assert [each.action_id for each in book.actions()] == ["5", "4", "3", "0"]


def test_a_transaction_is_all_or_nothing(book: Book) -> None:
    def half() -> None:
        with book.transaction(durable=True):
            accepted(book, "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert book.actions() == []
    assert book.outbox_depth() == 0


def test_a_step_fails_alone(book: Book) -> None:
    def failing() -> None:
        with book.step():
            accepted(book, "b")
            raise RuntimeError

    with book.transaction(durable=True):
        with book.step():
            accepted(book, "a")
        with pytest.raises(RuntimeError):
            failing()
    assert sent(book) == [("a", 1)]


def test_only_root_may_read_it(book: Book, path: Path) -> None:
    accepted(book)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_damaged_file_is_refused_with_what_to_do(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, and was never one" * 100)
    with pytest.raises(StoreFailed, match=r"damaged.*aside") as caught:
        Book(path, cluster="c", node="n")
    assert str(path) in str(caught.value)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_page_that_was_overwritten_is_noticed(book: Book, path: Path) -> None:
    for number in range(200):
        accepted(book, str(number))
    book.close()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)
    with pytest.raises(StoreFailed, match="damaged"):
        Book(path, cluster="c", node="n")


def test_a_newer_agents_file_is_refused(book: Book, path: Path) -> None:
    book.close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    database.close()
    with pytest.raises(FormatTooNew):
        Book(path, cluster="c", node="n")


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreFailed, match="open"):
        Book(tmp_path / "file" / "actions.db", cluster="c", node="n")


def test_somebody_who_looks_at_it_does_not_stop_it(book: Book, path: Path) -> None:
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM actions").fetchone() == (0,)
    accepted(book)
    assert reader.execute("SELECT count(*) FROM actions").fetchone() == (0,)
    reader.close()
    assert sent(book) == [("a", 1)]


def test_a_row_that_is_none_is_an_error_and_no_crash(book: Book, path: Path) -> None:
    accepted(book)
    database = sqlite3.connect(path)
    database.execute("UPDATE actions SET request = '{\"actionId\": 7'")
    database.commit()
    database.close()
    with pytest.raises(InvalidArgument):
        book.get("a")
    accepted(book, "b")
    assert [each.action_id for each in book.actions()] == ["b"]
    assert [each.action.action_id for each in book.open_actions()] == ["b"]


def test_a_step_whose_transaction_has_ended_fails(book: Book, path: Path) -> None:
    """A full disk ends it, whatever becomes of the statement that has met it."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(
        "CREATE TRIGGER full AFTER INSERT ON actions BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
    )
    other.close()
    with (
        pytest.raises(StoreFailed, match="no transaction"),
        book.transaction(durable=True),
        pytest.raises(StoreFailed, match="no such savepoint"),
        book.step(),
        contextlib.suppress(sqlite3.Error),
    ):
        accepted(book)
