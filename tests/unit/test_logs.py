"""Lines as they come out, on a stream of the test's own."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.logs import about, get_logger, redacted
from agent.logs.lines import set_up
from tests.cli_process import ROOT
from tests.waiting import PATIENCE


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """JSON lines from `info` on; what was set up before is put back."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    set_up("info", "json", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


def _lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_reader_s_keys_first(out: io.StringIO) -> None:
    with about(action_id="a-1"):
        get_logger("agent.actions").info("checkpoint ready", frozen_seconds=0.25)
    (line,) = _lines(out)
    assert list(line)[:4] == ["time", "level", "event", "action_id"]
    assert line["event"] == "checkpoint ready"
    assert line["action_id"] == "a-1"
    assert line["frozen_seconds"] == 0.25
    assert line["logger"] == "agent.actions"


async def test_each_task_s_lines_are_about_its_own_action(out: io.StringIO) -> None:
    async def act(action_id: str) -> None:
        with about(action_id=action_id):
            await asyncio.sleep(0)
            get_logger("x").info(action_id)

    await asyncio.gather(act("a"), act("b"))
    get_logger("x").info("neither")
    lines = _lines(out)
    assert {line["event"]: line.get("action_id") for line in lines} == {
        "a": "a",
        "b": "b",
        "neither": None,
    }


def test_libraries_lines_take_the_same_way(out: io.StringIO) -> None:
    logging.getLogger("nats.aio").warning("gone: %s", "eof")
    logging.getLogger("nats.aio").info("chatter")
    (line,) = _lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("gone: eof", "warning", "nats.aio")


def test_no_password_of_a_url_comes_out(out: io.StringIO) -> None:
    secret = "nats://agent:hunter2@broker:4222"
    get_logger("x").info("connecting", url=secret, servers=[secret])
    logging.getLogger("nats").error("lost %s", secret)
    try:
        raise ConnectionError(secret)
    except ConnectionError:
        get_logger("x").exception("failed")
    assert "hunter2" not in out.getvalue()
    assert [line["url"] for line in _lines(out) if "url" in line] == ["nats://***@broker:4222"]
    assert "ConnectionError" in _lines(out)[-1]["exception"]


@pytest.mark.parametrize("password", ["hunter2", "hun@ter2", "@hunter2@", "hunter2:@x"])
def test_whatever_the_password_is_made_of(password: str) -> None:
    text = f"lost nats://agent:{password}@broker:4222, see https://a/b@c"
    assert redacted(text) == "lost nats://***@broker:4222, see https://a/b@c"


def test_what_is_below_the_level_is_not_said(out: io.StringIO) -> None:
    get_logger("x").debug("detail")
    assert out.getvalue() == ""


def test_console_lines_are_for_people() -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    try:
        set_up("info", "console", stream)
        get_logger("x").info("ready", pods=3)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
        root.setLevel(level)
    assert "ready" in stream.getvalue()
    assert "pods=3" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_without_set_up_nothing_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    get_logger("x").warning("heard by whoever listens to logging")
    assert capsys.readouterr().out == ""


def test_a_long_line_is_looked_through_at_once() -> None:
    began = time.monotonic()
    assert redacted("x" * 1_000_000) == "x" * 1_000_000
    assert redacted("://" * 300_000) == "://" * 300_000
    # Hours where it is looked through again for each of its characters.
    assert time.monotonic() - began < PATIENCE


def test_a_command_that_says_nothing_does_not_wait_for_what_would_render_it() -> None:
    """structlog takes a sixth of the time that a checkpoint or restore needs to start."""
    program = (
        "import sys; import agent.checkpoint, agent.restore; from agent.logs import get_logger; "
        "print(sorted({'structlog', 'rich'} & set(sys.modules))); get_logger('x').warning('now'); "
        "print('structlog' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
    assert "now" in done.stderr


def test_a_first_line_without_a_descriptor_left_is_plain_and_fails_nothing() -> None:
    program = (
        "import resource; from agent.logs import get_logger; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); "
        "get_logger('x').warning('thawed', url='s3://me:hunter2@host', exc_info=True); print('on')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "on\n"
    assert "thawed" in done.stderr
    assert "hunter2" not in done.stderr
