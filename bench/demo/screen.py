"""What the demo prints: steps, commands as they can be typed, figures."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench.command import Argument, agent_argv

console = Console(highlight=False)

# A double-quoted word of a shell is itself, apart from variables, if it has none of these.
_SAFE = re.compile(r'[^"`\\!]*')


def step(title: str, why: str) -> None:
    """Head a step, with a sentence on what happens."""
    console.print(f"\n[bold cyan]{title}[/]\n{why}")


def show(*lines: Sequence[Argument]) -> None:
    """Print a command as it can be typed, on as many lines."""
    text = " \\\n    ".join(" ".join(map(_quoted, words)) for words in lines)
    console.print(Text(f"$ {text}", "green"), soft_wrap=True)


def shown_agent() -> list[str]:
    """How to start checkpoint-agent from here, as short as it goes."""
    program, *rest = agent_argv()
    path = Path(program)
    return [
        str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else program,
        *rest,
    ]


def _quoted(word: Argument) -> str:
    text = os.fspath(word)
    if "$" in text and _SAFE.fullmatch(text):
        return f'"{text}"'
    return shlex.quote(text)
