"""The real CRIU with one more action script, which can stop it or kill it at a chosen hook.

Reality cannot be made to die half-way at a chosen moment. Everything else is CRIU's own doing: the
wrapper only adds an ``--action-script`` to `criu dump` and `criu restore`; CRIU calls the one that
was added last first.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Wait as long as the file `hold` is there; kill CRIU (its parent); report failure; do nothing.
Action = Literal["hold", "kill", "fail", "pass"]

_CRIU = """#!/bin/sh
case "$1" in
dump | restore) exec {real} "$@" --action-script {script} ;;
esac
exec {real} "$@"
"""

_SCRIPT = """#!/bin/sh
echo "$CRTOOLS_SCRIPT_ACTION" >> {directory}/hooks
ls -A "$CRTOOLS_IMAGE_DIR/" >> {directory}/files
[ "$CRTOOLS_SCRIPT_ACTION" = {hook} ] || exit 0
echo $PPID > {directory}/criu.pid
: > {directory}/reached
{action}
"""

_ACTIONS: dict[Action, str] = {
    "hold": "while [ -e {directory}/hold ]; do sleep 0.01; done",
    "kill": "kill -KILL $PPID",
    "fail": "exit 1",
    "pass": "exit 0",
}


@dataclass(frozen=True, slots=True)
class HookedCriu:
    """One such CRIU, in a directory of its own."""

    directory: Path

    @property
    def program(self) -> Path:
        """What to start instead of the real one."""
        return self.directory / "criu"

    def reached(self) -> bool:
        """Whether the hook has been reached."""
        return (self.directory / "reached").exists()

    def pid(self) -> int:
        """CRIU's own, once the hook has been reached."""
        return int((self.directory / "criu.pid").read_text())

    def release(self) -> None:
        """Let CRIU go on."""
        (self.directory / "hold").unlink(missing_ok=True)

    def hooks(self) -> list[str]:
        """The hooks that came, in order."""
        return self._lines("hooks")

    def files(self) -> set[str]:
        """Names of everything that was in the images directory at any hook."""
        return set(self._lines("files"))

    def _lines(self, name: str) -> list[str]:
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []


def hooked_criu(directory: Path, real: Path, hook: str, action: Action = "hold") -> HookedCriu:
    """Write one into the new directory ``directory``."""
    directory.mkdir()
    (directory / "hold").touch()
    script, quoted = directory / "script", shlex.quote(str(directory))
    criu = HookedCriu(directory)
    texts = {
        criu.program: _CRIU.format(real=shlex.quote(str(real)), script=shlex.quote(str(script))),
        script: _SCRIPT.format(
            directory=quoted, hook=hook, action=_ACTIONS[action].format(directory=quoted)
        ),
    }
    for path, text in texts.items():
        path.write_text(text)
        path.chmod(0o700)
    return criu
