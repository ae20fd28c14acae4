"""doctor: whether this machine can checkpoint, and what to do where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agent.cli.errors import ReadInterrupted
from agent.cli.operation import perform
from agent.cli.options import OutputOption
from agent.cli.output import Output, emit
from agent.errors import MissingTool

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.doctor import Finding

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(output: OutputOption = Output.TEXT) -> None:
    """Check what this machine offers, and say what to do."""
    from agent.doctor import examine

    findings = perform(lambda _observer: examine(), output, ReadInterrupted)
    healthy = all(finding.status != "fail" for finding in findings)
    emit({"ok": healthy, "findings": findings}, output, lambda: _table(findings))
    if not healthy:
        raise typer.Exit(MissingTool.exit_code)


def _table(findings: list[Finding]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from agent.cli.figures import printable

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        said = Text(printable(finding.detail))
        if finding.advice:
            said.append(f"\n{printable(finding.advice)}", STYLES[finding.status])
        table.add_row(Text(finding.status, STYLES[finding.status]), finding.name, said)
    return table
