"""An error as people read it: what failed, what state things are in, what to try."""

from __future__ import annotations

import contextlib
import sys

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent.cli.figures import printable
from agent.cli.output import write
from agent.errors import AgentError

# The end of CRIU's log is what explains a failure; more would push the error off the screen.
LOG_LINES = 20


def show(error: AgentError) -> None:
    """Print ``error`` on standard error; silently not, when nobody can read that."""
    with contextlib.suppress(OSError):
        write(sys.stderr, rendered(error))


def rendered(error: AgentError) -> RenderableType:
    """The parts of ``error`` that say something, labelled and aligned."""
    parts = Table.grid(padding=(0, 1))
    parts.add_column(no_wrap=True)
    parts.add_column(overflow="fold")
    parts.add_row(Text("error:", "bold red"), Text(printable(str(error)), "bold"))
    if error.state:
        parts.add_row(Text("state:", "bold"), printable(error.state))
    if error.hint:
        parts.add_row(Text("try:", "bold"), printable(error.hint))
    log = str(error.fields().get("log_tail") or "").rstrip()
    if not log:
        return parts
    lines = printable("\n".join(log.splitlines()[-LOG_LINES:]))
    return Group(parts, Text("log:", "bold"), Padding(Text(lines, "dim"), (0, 0, 0, 2)))
