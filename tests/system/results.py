"""What came of each step, for a terminal and for docs/."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Literal

State = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Result:
    """A step, or one test of it."""

    name: str
    seconds: float
    state: State
    detail: str = ""


@dataclass(slots=True)
class Results:
    """Those of one run.

    Attributes:
        machine: versions of what is in it.
        accelerator: `kvm`, or `tcg` for a processor that is emulated.
    """

    machine: list[str] = field(default_factory=list)
    accelerator: str = ""
    found: list[Result] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> bool:
        """Whether nothing has failed."""
        return all(result.state != "failed" for result in self.found)

    def add(self, name: str, seconds: float, state: State, detail: str = "") -> None:
        """Add one."""
        self.found.append(Result(name, seconds, state, detail))

    def extend(self, results: list[Result]) -> None:
        """Add some."""
        self.found += results

    def table(self) -> str:
        """For a terminal: failures first in full, then one line for each."""
        failures = [f"FAILED {each.name.strip()}\n{each.detail}\n" for each in self._failures()]
        width = max(len(result.name) for result in self.found)
        lines = [
            f"{each.name:<{width}}  {each.seconds:7.1f} s  {each.state}" for each in self.found
        ]
        return "\n".join(["", *failures, *lines, self._sum()])

    def document(self) -> str:
        """The same as Markdown, with what it was run on."""
        rows = [
            f"| {each.name.strip()} | {each.seconds:.1f} | {each.state} |" for each in self.found
        ]
        return "\n".join(
            [
                "# The last run of `make test-system`",
                "",
                "Written by `make test-system SYSTEM_ARGS='--log docs/system-test.md'`.",
                "",
                f"- {time.strftime('%Y-%m-%d', time.gmtime())}; {self._sum()}",
                f"- host: {os.cpu_count()} cores; qemu with"
                f" {self.accelerator}"
                + (", so every processor is emulated" * (self.accelerator == "tcg")),
                f"- machine: Debian 13, Linux {', '.join(line for line in self.machine if line)}",
                "",
                "| step, and its tests | seconds | |",
                "|---|---|---|",
                *rows,
                "",
            ]
        )

    def _failures(self) -> list[Result]:
        return [each for each in self.found if each.state == "failed"]

    def _sum(self) -> str:
        passed = sum(each.state == "passed" for each in self.found)
        minutes = (time.monotonic() - self.began) / 60
        return f"{passed} passed, {len(self._failures())} failed, in {minutes:.0f} minutes"
