"""``make bench-scale``: measures, and writes the section "Scale" of bench/RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import markdown
from bench.command import interrupt_on_termination
from bench.scale import history, load, queries
from bench.scale.report import Measured, missed, section
from bench.scale.stage import QUICK, Size, stage

COMMITTED = Path(__file__).resolve().parent.parent
SCRATCH = Path("var/bench")

# Of the rate that was sustained: what queues then is the machine's own work, not a backlog.
_CALM = 1 / 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when every promise was kept, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="small and few: to see that it works, not to measure")  # fmt: skip
    options = parser.parse_args(arguments)
    interrupt_on_termination()
    try:
        measured = _measure(QUICK if options.quick else Size())
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    command = " ".join(["python -m bench.scale", *sys.argv[1:]])
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    directory = SCRATCH if options.quick else COMMITTED
    directory.mkdir(parents=True, exist_ok=True)
    results = directory / "RESULTS.md"
    before = results.read_text() if results.exists() else ""
    text = section(measured, command=command, date=date)
    results.write_text(markdown.with_scale(before, text))
    print(text)
    print(f"\nwritten: {results}")
    return 1 if missed(measured) and not options.quick else 0


def _measure(size: Size) -> Measured:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    say(f"starting {size.all_nodes} nodes in {size.processes} processes")
    with stage(size) as place:
        say(f"asking for {size.actions} checkpoints as fast as they are taken")
        rushed = asyncio.run(load.run(place, size.actions))
        rate = len(rushed.sent) / rushed.ending * _CALM
        say(f"asking for {size.calm_actions} at {rate:.0f} a second")
        calm = asyncio.run(load.run(place, size.calm_actions, rate))
        say(f"writing {size.rows} actions of before")
        tables = asyncio.run(history.write(place))
        say("asking for them")
        asked = asyncio.run(queries.run(place))
        say("done")
        return Measured(size, rushed, calm, tables, asked)


if __name__ == "__main__":
    sys.exit(main())
