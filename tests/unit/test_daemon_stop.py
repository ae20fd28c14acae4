"""How long the daemon takes to stop, where something does not end by itself."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from agent.config import Tools
from agent.daemon.ending import SAME_WISH, Ending
from agent.daemon.main import Daemon
from agent.runtime import server
from agent.settings import Settings
from tests.waiting import PATIENCE


async def test_in_a_hurry_it_waits_for_no_restore_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_FIRST_SECONDS", 3600.0)
    settings = Settings.model_validate(
        {
            "state_dir": tmp_path / "state",
            "stop_seconds": 3600.0,
            "rpc": {"socket": tmp_path / "agent.sock"},
            "metrics": {"address": ""},
            "pods": {"runc_roots": [tmp_path / "runc"]},
        }
    )
    # They are only asked for their version.
    silence = Path("/bin/true")
    ending = Ending()
    daemon = Daemon(settings, Tools(silence, silence), ending)
    with ExitStack() as stack:
        try:
            await daemon.start()
            # It is listened to for an hour.
            _, silent = await asyncio.open_unix_connection(str(tmp_path / "restore.sock"))
            stack.enter_context(closing(silent))
            await asyncio.sleep(0.1)
        finally:
            ending.signalled(signal.SIGTERM)
            stopping = asyncio.create_task(daemon.stop())
            await asyncio.sleep(SAME_WISH + 0.1)
            is_waiting = not stopping.done()
            ending.signalled(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                await stopping
    assert is_waiting
    assert ending.exit_code == 0
