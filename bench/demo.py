"""``make demo``: checkpoint a running container, kill it, restore it, and see that it went on.

A container with two processes, one that counts and one that holds real memory, under the machine's
own runc. Everything but the checkpoint in ./var/checkpoints is gone afterwards, also on Ctrl-C.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.errors import AgentError
from bench.bundle import COUNTER, memory
from bench.command import (
    Argument,
    CommandFailed,
    Finished,
    agent_argv,
    interrupt_on_termination,
    run_agent,
)
from bench.programs import CompileFailed
from bench.reports import Counter, Memory, Stalled
from bench.runc import Container, RuncFailed, runc_root

MIB = 1 << 20
MEMORY = 384  # MiB: "a few hundred", and still done in seconds on two cores
STORE = Path("var/checkpoints")

# How far the counter must get between two steps, in ticks: about a second's worth.
A_SECOND = 450

console = Console(highlight=False)


class Different(Exception):
    """What came back is not what was checkpointed."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the counter showed at each step."""

    before: int
    in_image: int
    killed_at: int
    after: int


def main() -> int:
    """Run the demo; 0 when everything came back as it was."""
    interrupt_on_termination()
    if os.geteuid() != 0:
        console.print("The demo starts containers, so it must run as root: sudo make demo")
        return 3
    try:
        demo()
    except KeyboardInterrupt:
        console.print("\nInterrupted. The container is gone, nothing was left behind.")
        return 130
    except (AgentError, CommandFailed, CompileFailed, Different, RuncFailed, Stalled) as error:
        console.print(Text(f"\nThe demo failed: {error}", "bold red"))
        return 1
    return 0


def demo() -> None:
    """The whole story, one step after the other."""
    with runc_root() as runc:
        step("1. Start a container", "Two processes: one counts, one holds "
             f"{MEMORY} MiB (random bytes, floats, text, zeros).")  # fmt: skip
        bundle = runc.build(COUNTER, memory(MEMORY))
        show(["runc", "--root", runc.path, "run", "--detach", "--bundle", bundle.path, "demo"])
        container = runc.start(bundle, "demo")
        counter = container.report("counter")
        before = counter.wait_beyond(Counter.TICKS, A_SECOND)
        console.print(f"It runs, and has counted to [bold]{before}[/].")

        step("2. Checkpoint it while it runs", "CRIU streams its memory to the agent, which "
             "compresses and stores it. It runs on as soon as the last byte is out. "
             "(`-o json` is for this demo to read; without it you get a table.)")  # fmt: skip
        saved = agent("checkpoint", container.id, "--runc-root", runc.path,
                      "--store", f"file://{STORE.absolute()}", "--name", "demo")  # fmt: skip
        console.print(f"It stood still for [bold]{saved.number('frozen_seconds'):.3f} s[/] "
                      f"and is [bold]{container.status()}[/].")  # fmt: skip

        killed_at = kill(container)
        restored = bring_back(container, saved)
        counts = went_on(container, before, killed_at)
    summary(saved, restored, counts)
    afterwards(saved.text("path"))


def kill(container: Container) -> int:
    """Let it count on, then end it for good; how far it got."""
    step("3. Kill it", "It counts on for a moment, so that the image is clearly of the past.")
    counter = container.report("counter")
    counter.wait_beyond(Counter.TICKS, counter.read(Counter.TICKS) + A_SECOND)
    show(["runc", "--root", container.runc.path, "delete", "--force", container.id])
    container.delete()
    killed_at = counter.read(Counter.TICKS)
    console.print(f"It is gone. Its last count was [bold]{killed_at}[/].")
    return killed_at


def bring_back(container: Container, saved: Finished) -> Finished:
    """Restore the checkpoint under the same id."""
    step("4. Restore it", "Stored chunks are read, decompressed and checked in parallel, "
         "and go straight into CRIU's pipes.")  # fmt: skip
    restored = agent("restore", saved.text("path"))
    console.print(f"It is [bold]{container.status()}[/], with pid {restored.text('pid')}.")
    return restored


def went_on(container: Container, before: int, killed_at: int) -> Counts:
    """Both processes go on from the image, or Different is raised."""
    step("5. Did it go on where it was?", "The counter says from where; the other one sums up "
         "its memory again and compares.")  # fmt: skip
    counter, held = container.report("counter"), container.report("memory")
    in_image = counter.read(Counter.RESUMED_FROM)
    after = counter.wait_beyond(Counter.TICKS, in_image + A_SECOND)
    held.ask(Memory.VERIFY, Memory.VERIFIED)
    if counter.read(Counter.RESUMES) != 1 or not before <= in_image <= killed_at:
        raise Different(f"the counter went on from {in_image}, not from the checkpoint")
    if held.read(Memory.FAILURES):
        raise Different("the memory's checksum has changed")
    console.print(f"Yes: it went on from [bold]{in_image}[/], and every one of its "
                  f"{MEMORY} MiB is as it was.")  # fmt: skip
    return Counts(before, in_image, killed_at, after)


def step(title: str, why: str) -> None:
    """Head a step, with a sentence on what happens."""
    console.print(f"\n[bold cyan]{title}[/]\n{why}")


def show(argv: list[Argument]) -> None:
    """Print a command as it can be typed."""
    console.print(Text("$ " + shlex.join(os.fspath(word) for word in argv), "green"),
                  soft_wrap=True)  # fmt: skip


def shown_agent() -> list[str]:
    """How to start checkpoint-agent from here, as short as it goes."""
    program, *rest = agent_argv()
    path = Path(program)
    return [
        str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else program,
        *rest,
    ]


def agent(*words: Argument) -> Finished:
    """Show and run a command of checkpoint-agent."""
    show([*shown_agent(), *words, "-o", "json"])
    finished = run_agent(words)
    phases = finished.document["phases"]
    if isinstance(phases, dict):
        spent = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in phases.items())
        console.print(f"[dim]{spent}[/]")
    return finished


def summary(saved: Finished, restored: Finished, counts: Counts) -> None:
    """The figures of both directions, and the counter's course."""
    raw, stored = saved.number("bytes_raw"), saved.number("bytes_stored")
    table = Table(title="\nCheckpoint and restore", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in (
        ("container stood still", f"{saved.number('frozen_seconds'):.3f} s"),
        ("checkpoint, until durable", f"{saved.number('wall_seconds'):.3f} s"),
        ("restore, until running", f"{restored.number('wall_seconds'):.3f} s"),
        ("raw", f"{raw / MIB:.1f} MiB"),
        ("stored", f"{stored / MIB:.1f} MiB"),
        ("ratio", f"{stored / raw:.2f}"),
        ("streams", f"{saved.text('streams')}, {saved.text('codec')}"),
        ("CRIU streamed", "yes" if saved.document["streamed"] else saved.text("fallback_reason")),
        ("count before the checkpoint", str(counts.before)),
        ("count in the image", str(counts.in_image)),
        ("count when killed", str(counts.killed_at)),
        ("count now, after the restore", str(counts.after)),
        ("memory after restore", "unchanged"),
    ):
        table.add_row(name, value)
    console.print(table)


def afterwards(path: str) -> None:
    """What to try next."""
    console.print("\nThe container is gone; the checkpoint is still there. Look at it, check it,"
                  " or remove it:")  # fmt: skip
    for words in (("inspect", path), ("verify", path), ("delete", path)):
        show([*shown_agent(), *words])


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    if code == 0:
        console.print(f"\nThe demo took {time.monotonic() - started:.1f} s.")
    sys.exit(code)
