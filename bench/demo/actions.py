"""What becomes of an action: drawn while it happens, and as the figures at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from bench.command import CommandFailed
from bench.demo.client import Action, Client
from bench.demo.screen import console

MIB = 1 << 20


@dataclass(slots=True)
class Drawing:
    """A line for each state that the action comes into, and for what is reported in between."""

    _seen: int = field(default=0, init=False)
    _progress: Action | None = field(default=None, init=False)

    def see(self, action: Action) -> None:
        """Print what is new."""
        timeline = action["timeline"]
        progress = action["details"]["progress"]
        for entry in timeline[self._seen :]:
            console.print(f"  [bold]{entry['state']}[/]")
        self._seen = len(timeline)
        if progress and progress != self._progress and action["status"] == "processing":
            self._progress = progress
            console.print(f"    {_figures(progress)}")


def follow(client: Client, action_id: str) -> Action:
    """Draw an action until it is ready.

    Raises:
        CommandFailed: it ended with an error.
    """
    action = client.watch(f"/v2/actions/{action_id}/events", Drawing().see)
    if action["status"] != "ready":
        raise CommandFailed(f"the action ended as {action['status']}: {action['details']['error']}")
    return action


def moments(action: Action) -> dict[str, float]:
    """Seconds from the request to each state."""
    asked = datetime.fromisoformat(action["action_timestamp"])
    return {
        entry["state"]: (datetime.fromisoformat(entry["time"]) - asked).total_seconds()
        for entry in action["timeline"]
    }


def _figures(progress: Action) -> str:
    raw, total = progress["bytes_raw"], progress["bytes_total"]
    rate = progress["bytes_per_second"] / MIB
    of = f" of {total / MIB:.0f}" if total else ""
    return f"{progress['phase']}: {raw / MIB:.0f}{of} MiB, {rate:.0f} MiB/s"
