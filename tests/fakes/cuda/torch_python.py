"""Stands for a Python that has PyTorch: runs what bench/gpu/workload.py would, with program.c.

    torch_python.py PROGRAM LIBRARY UUID -c ...                      sees a GPU
    torch_python.py PROGRAM LIBRARY UUID workload.py WHAT DIRECTORY ...

A step is one of its own, and only comes while the program below it computes on its GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def tell(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def work(program: list[str], what: str, directory: Path, number: int, seed: str) -> None:
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL)
    counter = Path(f"/tmp/cuda/{child.pid}.steps")
    # In no store of 8 MiB, whatever compresses it.
    memory = os.urandom(16 << 20)
    asked = [1] if what == "hold" else []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    step, before = 0, ""
    while what == "hold" or step < number:
        time.sleep(0.002)
        now = counter.read_text() if counter.exists() else ""
        if now == before or child.poll() is not None:
            continue
        before, step = now, step + 1
        tell(directory / "steps", str(step))
        if asked:
            asked.clear()
            tell(directory / "digest", str(hash(memory)))
    tell(directory / "digest", seed)
    child.kill()


def main(program: str, library: str, uuid: str, *words: str) -> None:
    if words[0] == "-c":
        return
    what, directory, *numbers = words[1:]
    if what == "bandwidth":
        found = {"torch": "stand-in", "gpu": "none", "gpu_bytes": 80 << 30}
        found |= {"to_gpu": 10**9, "from_gpu": 10**9}
        Path(directory, "bandwidth").write_text(json.dumps(found))
        return
    number, seed = [*numbers, ""][:2]
    work([program, library, "4", uuid], what, Path(directory), int(number), seed)


if __name__ == "__main__":
    main(*sys.argv[1:])
