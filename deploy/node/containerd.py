"""Gives a node's containerd the runtime handler `checkpoint-runc`, or takes it away again.

The init container runs it with the bundle's Python in the node's mount namespace; it stands on
nothing but that.

containerd 2 merges files that its `imports` name, so the handler gets one of its own where there is
a line for it. containerd 1 replaces *all* settings of the CRI by those of an imported file that has
any (1.6 and 1.7 were tried: the pause image and the other handlers are back at their defaults). So
there, and where nothing is imported, the handler goes to the end of the configuration file, between
two marks, and no other byte of it is touched. containerd itself reads the result before it is put
in place: everything that was in force before has to be so afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HANDLER = "checkpoint-runc"
ANNOTATIONS = "checkpoint-agent/*"
BEGIN = "# BEGIN checkpoint-agent. Its init container wrote this; uninstalling removes it.\n"
END = "# END checkpoint-agent\n"
# In the configuration's own directory: what it imports may be named from there.
TRIAL = ".checkpoint-agent.toml"
# Where a node may have its containerd, and systemctl.
NODE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the CRI with its handlers is called, by the version of the configuration.
PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}

Toml = dict[str, Any]


class Unchanged(Exception):
    """Nothing was changed; the text says why and what to do."""


class Containerd:
    """The node's, by what it says of its configuration."""

    def __init__(self, program: str, config: Path) -> None:
        self.config = config
        self.drop_in = config.parent / "conf.d" / "checkpoint-agent.toml"
        # There from before a change until containerd has read it.
        self.pending = config.parent / ".checkpoint-agent.restart"
        self._program = program

    def effective(self, file: Path) -> Toml:
        """What it makes of a configuration file, imports and defaults included.

        Raises:
            Unchanged: it cannot read it.
        """
        # Without a file containerd has its defaults, which an empty file means too.
        name = file if file.exists() else Path(os.devnull)
        done = subprocess.run(
            [self._program, "--config", name, "config", "dump"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Unchanged(f"containerd cannot read {file}: {done.stderr.strip()}")
        return tomllib.loads(done.stdout)


def handlers(effective: Toml) -> Toml:
    """The runtime handlers by name; none where the CRI is switched off."""
    plugins = effective.get("plugins", {})
    tables = (plugins.get(name, {}).get("containerd", {}) for name in PLUGINS.values())
    return next((table["runtimes"] for table in tables if table.get("runtimes")), {})


def default_handler(effective: Toml) -> Toml:
    """The handler of pods that name none."""
    plugins = effective.get("plugins", {})
    tables = (plugins.get(name, {}).get("containerd", {}) for name in PLUGINS.values())
    name = next((table["default_runtime_name"] for table in tables if table), "runc")
    found: Toml = handlers(effective).get(name, {})
    return found


def add(containerd: Containerd, runtime: Path) -> None:
    """Make containerd start ``runtime`` for the handler.

    Raises:
        Unchanged: it cannot be done without changing something else.
    """
    if _binary(containerd.effective(containerd.config)) == str(runtime):
        return
    containerd.config.parent.mkdir(parents=True, exist_ok=True)
    before = _without_ours(containerd)
    problem = ""
    for file, text in _ways(containerd, before, runtime):
        problem = _try(containerd, before, file, text, runtime)
        if not problem:
            print(f"containerd: {file} has the handler {HANDLER} now")
            return
    raise Unchanged(
        f"{problem}. Nothing was changed. Checkpoints work all the same; for restores into pods "
        "see docs/kubernetes.md, Install"
    )


def _binary(effective: Toml) -> str:
    options = handlers(effective).get(HANDLER, {}).get("options", {})
    return str(options.get("BinaryName", ""))


def _without_ours(containerd: Containerd) -> Toml:
    """What is in force but for what an earlier version has added."""
    text = _text(containerd.config)
    kept = without_block(text)
    if kept == text:
        before = containerd.effective(containerd.config)
    else:
        trial = containerd.config.with_name(TRIAL)
        try:
            _write(trial, kept)
            before = containerd.effective(trial)
        finally:
            trial.unlink(missing_ok=True)
    handlers(before).pop(HANDLER, None)
    return before


def _ways(containerd: Containerd, before: Toml, runtime: Path) -> Iterator[tuple[Path, str]]:
    """Files to write and their text, the best first."""
    text = _text(containerd.config)
    given: Toml = tomllib.loads(text)
    version = int(given.get("version") or before["version"])
    ours = _toml(version, HANDLER, _like_the_default(before, version, runtime))
    if before["version"] >= 3 and any(
        Path(name) == containerd.drop_in.parent / "*.toml" for name in given.get("imports", [])
    ):
        yield containerd.drop_in, f"version = {version}\n{ours}"
    kept = without_block(text) or f"version = {version}\n"
    if not kept.endswith("\n"):
        kept += "\n"
    yield containerd.config, f"{kept}{BEGIN}{ours}{END}"
    # A file that names handlers, and not runc, has none: that one is only there by default.
    runc = _toml(version, "runc", handlers(before).get("runc", {}))
    yield containerd.config, f"{kept}{BEGIN}{runc}{ours}{END}"


def _like_the_default(before: Toml, version: int, runtime: Path) -> Toml:
    """The handler: as the one of pods that name none, but for what it starts and is told."""
    model = default_handler(before)
    options = model.get("options", {})
    if version == before["version"]:
        handler = {**model, "options": dict(options)}
    else:
        # Names of settings have changed; these have not, and a wrong cgroup driver would be fatal.
        kept = {name: options[name] for name in ("SystemdCgroup", "Root") if name in options}
        handler = {"runtime_type": "io.containerd.runc.v2", "options": kept}
    handler["options"]["BinaryName"] = str(runtime)
    for name in ("pod_annotations", "container_annotations"):
        handler[name] = sorted({*(model.get(name) or []), ANNOTATIONS})
    return handler


def _toml(version: int, name: str, handler: Toml) -> str:
    table = f'plugins."{PLUGINS[version]}".containerd.runtimes.{name}'
    text = f"[{table}]\n"
    # What JSON has for these values is TOML too.
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in handler.items()
                    if not isinstance(value, dict))  # fmt: skip
    options = handler.get("options", {})
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    return f"{text}[{table}.options]\n{''.join(lines)}"


def _try(containerd: Containerd, before: Toml, file: Path, text: str, runtime: Path) -> str:
    """Put the text in place if containerd then has the handler and all else as before.

    Returns what is wrong, "" when it is in place.
    """
    # A drop-in is only read by its own name, and is looked at in place: containerd does not read it
    # before it is restarted.
    trial = file if file == containerd.drop_in else file.with_name(TRIAL)
    trial.parent.mkdir(exist_ok=True)
    was_pending = containerd.pending.exists()
    containerd.pending.touch()
    placed = False
    try:
        _write(trial, text)
        after = containerd.effective(containerd.config if trial == file else trial)
        problem = "" if _binary(after) == str(runtime) else "containerd does not see the handler"
        problem = problem or _lost(before, after)
        if not problem and trial != file:
            _replace(file, trial)
        placed = not problem
    except Unchanged as reason:
        problem = str(reason)
    finally:
        if not placed:
            trial.unlink(missing_ok=True)
            if not was_pending:
                containerd.pending.unlink()
    return problem


def _replace(file: Path, trial: Path) -> None:
    """Put the trial in the file's place, and keep a copy of what was there."""
    if file.exists():
        shutil.copy2(file, file.with_name(f"{file.name}.before-checkpoint-agent"))
        shutil.copymode(file, trial)
    # It may be a link to where the node keeps it.
    trial.replace(file.resolve())


def _write(file: Path, text: str) -> None:
    """On the disk when it returns, and under its name only as a whole: the power may go."""
    # A name that no import matches.
    new = file.with_name(f"{file.name}.new")
    try:
        with new.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _lost(before: object, after: object, path: str = "") -> str:
    """The first setting that is not as it was, "" when there is none."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = (_lost(value, after.get(key), f"{path}.{key}") for key, value in before.items())
        return next(filter(None, found), "")
    # Which files are read may change: one of them is new.
    if before == after or path == ".imports":
        return ""
    return f"{path[1:]} would change from {before!r} to {after!r}"


def remove(containerd: Containerd) -> None:
    """Take the handler away again. Pods that use it can then not be made any more."""
    text = _text(containerd.config)
    kept = without_block(text)
    if kept != text:
        containerd.pending.touch()
        trial = containerd.config.with_name(TRIAL)
        _write(trial, kept)
        shutil.copymode(containerd.config, trial)
        trial.replace(containerd.config.resolve())
    if containerd.drop_in.exists():
        containerd.pending.touch()
        containerd.drop_in.unlink()


def without_block(text: str) -> str:
    """A configuration without what was added to it."""
    return re.sub(f"(?ms)^{re.escape(BEGIN)}.*?^{re.escape(END)}", "", text)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def restart(containerd: Containerd, service: str) -> None:
    """Make containerd read its configuration, if it has not done so since it was changed.

    Containers run on meanwhile: they belong to their shims.

    Raises:
        Unchanged: it did not start, and does so with what it had before.
    """
    if not containerd.pending.exists():
        return
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        print("containerd: there is no systemd here. Restart containerd yourself: pods cannot be "
              "restored before. Containers run on meanwhile.")  # fmt: skip
        return
    print(f"containerd: restarting {service}")
    done = subprocess.run(
        ["systemctl", "restart", service], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        remove(containerd)
        subprocess.run(["systemctl", "restart", service], check=False)
        containerd.pending.unlink()
        raise Unchanged(f"{service} did not start with the handler, which is removed again: "
                        f"{done.stderr.strip()}")  # fmt: skip
    containerd.pending.unlink()


def main() -> int:
    """Always 0: the node's other work does not depend on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["add", "remove"])
    parser.add_argument("runtime", type=Path, nargs="?", help="what the handler starts")
    arguments = parser.parse_args()
    # The container's is another one than the node's.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{NODE_PATH}"
    name = os.environ.get("CONTAINERD_CONFIG", "/etc/containerd/config.toml")
    program = shutil.which("containerd")
    if not name or program is None:
        print("containerd: left alone. For restores into pods, see docs/kubernetes.md, Install.")
        return 0
    containerd = Containerd(program, Path(name))
    try:
        if arguments.action == "add":
            add(containerd, arguments.runtime)
        else:
            remove(containerd)
        restart(containerd, os.environ.get("CONTAINERD_SERVICE", "containerd"))
    except Unchanged as reason:
        print(f"containerd: {reason}", file=sys.stderr)
    except (OSError, ValueError) as error:
        # A read-only /etc, for one, or a file that is no text. Checkpoints work there all the same.
        print(f"containerd: {name} could not be changed ({error}). For restores into pods see "
              "docs/kubernetes.md, Install", file=sys.stderr)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
