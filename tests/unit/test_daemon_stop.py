"""How long the daemon takes to stop, where something does not end by itself."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from agent.config import Tools
from agent.daemon.ending import SAME_WISH, Ending
from agent.daemon.main import Daemon
from agent.settings import Settings


async def test_in_a_hurry_it_waits_for_no_restore_either(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "state_dir": tmp_path / "state",
            "stop_seconds": 60.0,
            "rpc": {"socket": tmp_path / "agent.sock"},
            "metrics": {"address": ""},
            "pods": {"runc_roots": [tmp_path / "runc"]},
        }
    )
    # They are only asked for their version.
    silence = Path("/bin/true")
    ending = Ending()
    daemon = Daemon(settings, Tools(silence, silence), ending)
    await daemon.start()
    try:
        # It is listened to for ten seconds.
        _, silent = await asyncio.open_unix_connection(str(tmp_path / "restore.sock"))
        await asyncio.sleep(0.1)
        ending.signalled(signal.SIGTERM)
    finally:
        began = time.monotonic()
        stopping = asyncio.create_task(daemon.stop())
        await asyncio.sleep(SAME_WISH + 0.1)
        assert not stopping.done()
        ending.signalled(signal.SIGTERM)
        await stopping
    assert time.monotonic() - began < 5
    assert ending.exit_code == 0
    silent.close()
