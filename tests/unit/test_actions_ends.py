"""Actions that fail or are given up: each ends once, and says why."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.actions.worker import Reports
from agent.errors import (
    ActionNotFound,
    DumpFailed,
    InvalidArgument,
    PodNotFound,
    StoreFailed,
)
from agent.messages.model import ActionType, State
from tests.fakes.scripted_worker import ScriptedWorker, outcome, request
from tests.scripted_executors import executor, held, raising, sent, states
from tests.waiting import eventually_async


class SlowRollback:
    """Runs until it is given up, and takes its time to put things back."""

    is_over = False

    async def __call__(self, _reports: Reports) -> None:
        """The script."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            self.is_over = True


async def test_every_failure_is_an_error_event_with_what_to_do(tmp_path: Path) -> None:
    failures: dict[str, tuple[Exception, str]] = {
        "dump": (DumpFailed("container 'x'", "no", "the log"), "dump_failed"),
        "store": (StoreFailed("write", "s3://b", "forbidden"), "store_failed"),
        "bug": (ZeroDivisionError("oh"), "internal"),
    }
    worker = ScriptedWorker({name: raising(error) for name, (error, _) in failures.items()})
    worker.refused["gone"] = PodNotFound("pod x/y")
    worker.refused["wrong"] = InvalidArgument("checkpoint.overrides.criuOpts", "no")
    async with executor(tmp_path, worker) as made:
        for name in (*failures, "gone", "wrong"):
            await made.submit(request(name))
        for name, (_, code) in failures.items():
            failure = (await made.wait(name)).event.failure
            assert failure is not None
            assert failure.code == code
            assert failure.message
            assert failure.state
        assert (await made.wait("dump")).event.failure.log_tail == "the log"  # type: ignore[union-attr]
        assert "check free space" in (await made.wait("store")).event.failure.hint  # type: ignore[union-attr]
        # Refused before its turn: never processing.
        assert (await made.wait("gone")).event.failure.code == "pod_not_found"  # type: ignore[union-attr]
        assert await states(made, "gone") == [State.INITIALIZED, State.ERROR]
        wrong = (await made.wait("wrong")).event.failure
        assert wrong is not None
        assert wrong.field == "checkpoint.overrides.criuOpts"
        # The agent goes on.
        await made.submit(request("next"))
        assert (await made.wait("next")).state is State.READY


async def test_a_failure_after_it_was_captured_is_an_error_event_too(tmp_path: Path) -> None:
    async def script(reports: Reports) -> None:
        reports.captured(outcome("a"))
        raise StoreFailed("write", "s3://b", "gone")

    worker = ScriptedWorker({"a": script}, asynchronous={"a"})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        assert (await made.wait("a")).state is State.ERROR
        assert await states(made) == [
            State.INITIALIZED, State.PROCESSING, State.CHECKPOINT_CREATED, State.ERROR,
        ]  # fmt: skip


async def test_what_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    script, gate = held()
    worker = ScriptedWorker({"a": script})
    async with executor(tmp_path, worker, concurrency=1) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began == ["a"])
        await made.submit(request("b"))
        cancelled = await made.cancel("b")
        assert cancelled.event.failure is not None
        assert cancelled.event.failure.code == "cancelled"
        assert await states(made, "b") == [State.INITIALIZED, State.ERROR]
        gate.set()
        assert (await made.wait("a")).state is State.READY
        assert worker.began == ["a"]


async def test_what_is_only_being_written_down_is_cancelled_too(tmp_path: Path) -> None:
    """Somebody who looks at the journal holds it up, as a slow disk does."""
    worker = ScriptedWorker()
    async with executor(tmp_path, worker) as made:
        with closing(sqlite3.connect(tmp_path / "actions.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            taking = [asyncio.create_task(made.submit(request("a"))) for _ in range(2)]
            await asyncio.sleep(0)
            cancelling = asyncio.create_task(made.cancel("a"))
            await asyncio.sleep(0.1)
            # One that comes later is another one's, and keeps nobody waiting.
            taking.append(asyncio.create_task(made.submit(request("b"))))
            await asyncio.sleep(0)
            other.execute("COMMIT")
        cancelled = await cancelling
        assert cancelled.event.failure is not None
        assert cancelled.event.failure.code == "cancelled"
        await asyncio.gather(*taking)
        assert (await made.wait("b")).state is State.READY
        assert worker.began == ["b"]


async def test_what_runs_is_put_back_before_cancel_returns(tmp_path: Path) -> None:
    rollback = SlowRollback()
    worker = ScriptedWorker({"a": rollback})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began)
        cancelled = await made.cancel("a")
        assert rollback.is_over
        assert cancelled.event.failure is not None
        assert cancelled.event.failure.code == "cancelled"
        assert "as it was before" in cancelled.event.failure.state


async def test_giving_up_twice_does_not_cut_the_rollback_short(tmp_path: Path) -> None:
    rollback = SlowRollback()
    worker = ScriptedWorker({"a": rollback})
    async with executor(tmp_path, worker) as made:
        await made.submit(request("a"))
        await eventually_async(lambda: worker.began)
        first = asyncio.create_task(made.cancel("a"))
        await asyncio.sleep(0.01)
        await made.stop(0)
        assert rollback.is_over
        await first


async def test_a_bug_that_talks_without_end_fits_into_an_event(tmp_path: Path) -> None:
    worker = ScriptedWorker(
        {
            "a": raising(RuntimeError("x" * 10**6)),
            "b": raising(DumpFailed("x", "y" * 10**6, "z" * 10**6)),
        }
    )
    async with executor(tmp_path, worker) as made:
        for name in ("a", "b"):
            await made.submit(request(name))
            failure = (await made.wait(name)).event.failure
            assert failure is not None
        assert max(len(row.payload) for row in await made.outbox.next()) < 100_000


async def test_what_giving_up_looks_like_is_not_the_reason(tmp_path: Path) -> None:
    async def script(_reports: Reports) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DumpFailed("x", "killed by SIGTERM") from None

    async with executor(tmp_path, ScriptedWorker({"a": script})) as made:
        await made.submit(request("a"))
        await made.wait("a", {State.PROCESSING})
        failure = (await made.cancel("a")).event.failure
        assert failure is not None
        assert failure.code == "cancelled"


async def test_what_has_ended_stays_as_it_is(tmp_path: Path) -> None:
    async with executor(tmp_path, ScriptedWorker()) as made:
        await made.submit(request("a"))
        await made.wait("a")
        assert (await made.cancel("a")).state is State.READY
        with pytest.raises(ActionNotFound):
            await made.cancel("nobody")


async def test_a_message_that_is_no_action_is_answered(tmp_path: Path) -> None:
    async with executor(tmp_path, ScriptedWorker()) as made:
        await made.refuse("bad", ActionType.CHECKPOINT, InvalidArgument("kind", "no"))
        (event,) = await sent(made)
        assert (event.action_id, event.sequence, event.state) == ("bad", 0, State.ERROR)
        assert event.failure is not None
        assert event.failure.field == "kind"
        await made.submit(request("a"))
        await made.wait("a")
        before = await sent(made)
        await made.refuse("a", ActionType.CHECKPOINT, InvalidArgument("kind", "no"))
        assert await sent(made) == before


@pytest.mark.parametrize(
    "text", ["file \udcff", "\0\x1b[31m", "\U0001f600" * 10**5, "\x01" * 10**6]
)
async def test_whatever_a_tool_says_it_ends_and_can_be_read(tmp_path: Path, text: str) -> None:
    worker = ScriptedWorker(
        {"a": raising(DumpFailed(text, text, text)), "b": raising(RuntimeError(text))}
    )
    async with executor(tmp_path, worker) as made, asyncio.timeout(20):
        for name in ("a", "b"):
            await made.submit(request(name))
            failure = (await made.wait(name)).event.failure
            assert failure is not None
        await made.refuse("c", ActionType.RESTORE, InvalidArgument(text, text))
        assert await states(made, "c") == [State.ERROR]
        assert max(len(row.payload) for row in await made.outbox.next()) < 128 << 10


async def test_of_a_log_the_end_is_kept_and_of_all_else_the_beginning(tmp_path: Path) -> None:
    said = "first " + "\u00e9" * 10**5 + " last"
    async with executor(
        tmp_path, ScriptedWorker({"a": raising(DumpFailed("x", said, said))})
    ) as made:
        await made.submit(request("a"))
        failure = (await made.wait("a")).event.failure
    assert failure is not None
    assert failure.message.startswith("checkpoint of x failed: first ")
    assert failure.log_tail.endswith(" last")
    assert min(len(failure.message), len(failure.log_tail)) > 2000
