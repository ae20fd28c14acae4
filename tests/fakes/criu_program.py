"""A program that is started as CRIU is, writes down how, and calls its action script.

Real CRIU neither tells which descriptors and signals it was given nor fails at a wanted hook.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# A shell, because Python would change the signals it is asked about. Descriptors are looked at one
# by one: listing them would open one more. The script gets none, as CRIU gives it none.
_PROGRAM = """#!/bin/sh
cd {directory} || exit 99
echo $$ > pid
printf '%s\\n' "$@" > argv
grep SigIgn: /proc/self/status > signals
for n in 0 1 2 3 4 5 6 7 8 9; do
    [ -e /proc/$$/fd/$n ] && echo $n >> descriptors
done
for n in 1 2 4 5; do
    [ -e /proc/$$/fd/$n ] && eval "echo written to $n >&$n"
done
[ "$1" = swrk ] && dd bs=1048576 count=1 <&3 of=message 2>/dev/null
while [ $# -gt 0 ]; do
    [ "$1" = --action-script ] && script=$2
    shift
done
failed=0
for hook in {hooks}; do
    CRTOOLS_SCRIPT_ACTION=$hook CRTOOLS_INIT_PID=4711 "$script" 0<&- 1>&- 2>&- 4>&- 5>&-
    result=$?
    [ $result = 0 ] || failed=1
    echo "$hook $result" >> answers
done
[ $failed = 0 ] || exit 1
{end}
"""


@dataclass(frozen=True, slots=True)
class CriuProgram:
    """One such program, in a directory of its own."""

    directory: Path

    @property
    def path(self) -> Path:
        """What to start."""
        return self.directory / "criu"

    @property
    def started(self) -> bool:
        """Whether it ever was."""
        return (self.directory / "pid").exists()

    def pid(self) -> int:
        """Of the process that it was."""
        return int((self.directory / "pid").read_text())

    def argv(self) -> list[str]:
        """Its arguments."""
        return (self.directory / "argv").read_text().splitlines()

    def message(self) -> bytes:
        """What it read as `criu swrk 3`."""
        return (self.directory / "message").read_bytes()

    def descriptors(self) -> set[int]:
        """Which of 0 to 9 it was given."""
        return {int(line) for line in (self.directory / "descriptors").read_text().split()}

    def ignored_signals(self) -> set[int]:
        """Numbers of the signals it was told to ignore."""
        mask = int((self.directory / "signals").read_text().split()[1], 16)
        return {number for number in range(1, 65) if mask >> number - 1 & 1}

    def answers(self) -> list[tuple[str, int]]:
        """Hooks in order, with the action script's exit status."""
        path = self.directory / "answers"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(hook, int(status)) for hook, status in (line.split() for line in lines)]


def criu_program(directory: Path, hooks: Iterable[str] = (), end: str = "exit 0") -> CriuProgram:
    """Write one that runs its action script for ``hooks`` and ends with the command ``end``.

    A hook that fails makes it end with status 1, after all others.
    """
    directory.mkdir()
    program = CriuProgram(directory)
    text = _PROGRAM.format(
        directory=shlex.quote(str(directory)),
        hooks=" ".join(hooks),
        end=end,
    )
    program.path.write_text(text)
    program.path.chmod(0o700)
    return program
