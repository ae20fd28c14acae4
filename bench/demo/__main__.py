"""The whole story, one step after the other."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from rich.text import Text

from agent.errors import AgentError
from bench.command import CommandFailed, interrupt_on_termination
from bench.demo import pod
from bench.demo.actions import follow
from bench.demo.client import Client
from bench.demo.dev import dev
from bench.demo.pod import Different, Pod
from bench.demo.screen import console, show, shown_agent, step
from bench.demo.summary import summary
from bench.programs import CompileFailed
from bench.reports import Stalled
from bench.runc import RuncFailed, runc_root

STORE = Path("var/checkpoints")


def main() -> int:
    """Run the demo; 0 when everything came back as it was."""
    interrupt_on_termination()
    if os.geteuid() != 0:
        console.print("The demo starts containers, so it must run as root: sudo make demo")
        return 3
    try:
        demo()
    except KeyboardInterrupt:
        console.print("\nInterrupted. Everything has ended, nothing was left behind.")
        return 130
    except (AgentError, CommandFailed, CompileFailed, Different, RuncFailed, Stalled) as error:
        console.print(Text(f"\nThe demo failed: {error}", "bold red"))
        return 1
    return 0


def demo() -> None:
    """From nothing to a restored pod, and back to nothing."""
    with runc_root() as runc, tempfile.TemporaryDirectory(prefix="dev-") as directory:
        step("1. Start everything", "A broker (NATS), the daemon of a node, and the API: what a "
             "cluster has, on this machine. (`-o json` is for this demo to read; without it you "
             "get a table.)")  # fmt: skip
        with dev(Path(directory), runc.path, STORE.absolute()) as running:
            console.print(f"All of it answers. The page for people is {running.url}, as long as "
                          "this demo runs.")  # fmt: skip
            step("2. Start a pod", f"Two containers: one counts, one holds {pod.MEMORY} MiB "
                 "(random bytes, floats, text, zeros).")  # fmt: skip
            path = story(Client(running), pod.start(runc))
    afterwards(path)


def story(client: Client, made: Pod) -> str:
    """What is done with the pod; where its checkpoint is."""
    before = made.count_on()
    console.print(f"It runs, and has counted to [bold]{before}[/].")

    step("3. Checkpoint it while it runs", "With any HTTP client. ($TOKEN is the one that `dev` "
         "has printed.) The answer is the action's id; its states come live.")  # fmt: skip
    named = {"namespace": pod.NAMESPACE, "pod_name": pod.NAME}
    saved = follow(client, client.post("/v2/checkpoint/pod", dict(named)))
    console.print(f"Both containers stood still for [bold]{saved['details']['frozen_seconds']:.3f} "
                  f"s[/], and are [bold]{made.counter.status()}[/].")  # fmt: skip

    step("4. Kill it", "It counts on for a moment, so that the image is clearly of the past.")
    made.count_on()
    killed_at = made.kill()
    console.print(f"It is gone. Its last count was [bold]{killed_at}[/].")

    step("5. Restore it", "The latest action of a pod is known by its UID. Its checkpoint is read, "
         "decompressed and checked in parallel, and goes straight into CRIU's pipes.")  # fmt: skip
    latest = client.get(f"/v2/actions/from_pod/{made.uid}")
    restored = follow(
        client, client.post("/v2/restore/pod", {"action_id": latest, "reason": "manual"})
    )
    console.print(f"Both containers are [bold]{made.counter.status()}[/].")

    step("6. Did it go on where it was?", "The counter says from where; the other one sums up "
         "its memory again and compares.")  # fmt: skip
    counts = made.went_on(before, killed_at)
    console.print(f"Yes: it went on from [bold]{counts.in_image}[/], and every one of its "
                  f"{pod.MEMORY} MiB is as it was.")  # fmt: skip
    summary(saved, restored, counts)
    return str(saved["details"]["path"])


def afterwards(path: str) -> None:
    """What to try next."""
    console.print("\nPod, broker, daemon and API are gone; the checkpoint is still there. Look at "
                  "it, check it, or remove it:")  # fmt: skip
    for words in (("inspect", path), ("verify", path), ("delete", path)):
        show([*shown_agent(), *words])
    console.print("\nTo play with all of it yourself, with curl or on its page, until Ctrl-C:")
    show([*shown_agent(), "dev"])


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    if code == 0:
        console.print(f"\nThe demo took {time.monotonic() - started:.1f} s.")
    sys.exit(code)
