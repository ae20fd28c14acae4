"""``make bench``: measures the agent beside runc with tar and zstd, and writes bench/RESULTS.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import markdown, plot
from bench.command import interrupt_on_termination
from bench.lab import QUICK, Lab, Scale, lab
from bench.machine import facts
from bench.measures import (
    checkpoint,
    codecs,
    daemon,
    launcher,
    peak,
    pod,
    pod_restore,
    restore,
    wrapper,
)
from bench.outcome import Outcome

MEASURES: dict[str, Callable[[Lab], Outcome]] = {
    "checkpoint": checkpoint.measure,
    "restore": restore.measure,
    "peak": peak.measure,
    "launcher": launcher.measure,
    "codecs": codecs.measure,
    "daemon": daemon.measure,
    "pod": pod.measure,
    "wrapper": wrapper.measure,
    "pod_restore": pod_restore.measure,
}

COMMITTED = Path(__file__).resolve().parent
SCRATCH = Path("var/bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when every promise was kept, 1 when not, 3 when not root."""
    options = _parse(arguments)
    if os.geteuid() != 0:
        print("The benchmark starts containers and empties caches, so it must run as root.",
              file=sys.stderr)  # fmt: skip
        return 3
    interrupt_on_termination()
    try:
        outcomes, machine = _measure(options)
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    _write(options.output or _default_output(options), outcomes, machine)
    kept = all(target.met for outcome in outcomes for target in outcome.targets)
    # At the small sizes of --quick fixed costs prevail, and the promises are not about those.
    return 0 if kept or options.quick else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="small and few: to see that it works, not to measure")  # fmt: skip
    parser.add_argument("--only", action="append", choices=sorted(MEASURES), metavar="NAME",
                        help=f"only this measure: {', '.join(MEASURES)}")  # fmt: skip
    parser.add_argument("--disk", type=Path, default=SCRATCH, metavar="DIR",
                        help="write everything below it (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="where RESULTS.md goes (default: bench/ for a whole run, "
                             f"{SCRATCH} for --quick and --only)")  # fmt: skip
    return parser.parse_args(arguments)


def _default_output(options: argparse.Namespace) -> Path:
    """Partial figures never replace whole ones."""
    return SCRATCH if options.quick or options.only else COMMITTED


def _measure(options: argparse.Namespace) -> tuple[list[Outcome], dict[str, str]]:
    outcomes = []
    with lab(QUICK if options.quick else Scale(), options.disk) as place:
        for name in options.only or MEASURES:
            began = time.monotonic()
            outcome = MEASURES[name](place)
            print(f"\n{outcome.title} ({time.monotonic() - began:.0f} s)")
            for target in outcome.targets:
                print(f"  {'met   ' if target.met else 'MISSED'} {target.promise}: "
                      f"{target.value:.3g} {target.unit} (at most {target.limit:g}), "
                      f"{target.how}", flush=True)  # fmt: skip
            outcomes.append(outcome)
        return outcomes, facts(place.tools, place.work)


def _write(directory: Path, outcomes: list[Outcome], machine: dict[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m bench", *sys.argv[1:]])
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    targets = [target for outcome in outcomes for target in outcome.targets]
    text = markdown.render(outcomes, machine, command=command, date=date)
    document = {"command": command, "date": date, "machine": machine,
                "outcomes": [outcome.document() for outcome in outcomes]}  # fmt: skip
    results = directory / "RESULTS.md"
    if results.exists() and (scale := markdown.scale_of(results.read_text())):
        text = markdown.with_scale(text, scale)
    results.write_text(text)
    (directory / "results.svg").write_text(plot.svg(targets))
    (directory / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nwritten: {directory / 'RESULTS.md'}")


if __name__ == "__main__":
    sys.exit(main())
