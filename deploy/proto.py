"""Generates agent/pb from proto/: `make proto`. With --check it only compares: `make check`.

protoc writes imports for a package at the top level; ours lies in agent.pb.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO, GENERATED = ROOT / "proto", ROOT / "agent" / "pb"


def generate(out: Path) -> dict[Path, str]:
    """Every generated file, by its path below agent/pb."""
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    # protoc finds its plugins for types, which come as commands, through PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    known = resources.files("grpc_tools") / "_proto"
    argv = [
        "protoc", f"--proto_path={PROTO}", f"--proto_path={known}", f"--python_out={out}",
        f"--grpc_python_out={out}", f"--mypy_out=quiet:{out}", f"--mypy_grpc_out=quiet:{out}",
        *files,
    ]  # fmt: skip
    if protoc.main(argv) != 0:
        sys.exit("proto: protoc has failed")
    return {
        path.relative_to(out): _rehome(path.read_text())
        for path in sorted(out.rglob("*.py*"))
        # Messages alone have no service, and no use for its module.
        if "_grpc" not in path.name or "class AgentStub" in path.read_text()
    }


def _rehome(text: str) -> str:
    return re.sub(
        r"^(from|import) checkpoint_agent\.", r"\1 agent.pb.checkpoint_agent.", text, flags=re.M
    )


def main() -> None:
    """Write, or with --check compare."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = generate(Path(scratch))
    if "--check" in sys.argv:
        stale = [path for path, text in wanted.items() if _read(GENERATED / path) != text]
        if stale:
            sys.exit(f"proto: run `make proto`: {', '.join(map(str, stale))} differ from proto/")
        return
    for path, text in wanted.items():
        (GENERATED / path).parent.mkdir(parents=True, exist_ok=True)
        (GENERATED / path).write_text(text)
    print(f"agent/pb: {len(wanted)} files")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    main()
