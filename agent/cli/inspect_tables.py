"""What ``inspect`` shows: a checkpoint's facts, and the process tree of each member."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from agent.cli.figures import count, counted, duration, printable, size
from agent.cli.tables import facts, how_streamed, listing, phases, stored

if TYPE_CHECKING:
    from agent.inspect import Inspection, MemberInspection, VolumeSize
    from agent.inspect.processes import Process

# Indentation ends here: a name and its figures need the rest of 80 columns.
DEEPEST = 6

_COLUMNS = ("PROCESS", "PID", "STATE", "THREADS", "SAVED", "MAPPED", "FILES")
_FIGURES = ("PID", "THREADS", "SAVED", "MAPPED", "FILES")


def inspection(found: Inspection) -> RenderableType:
    """Everything about a checkpoint that a person asks first."""
    host = found.host
    runc = f", runc {host['runc']}" if host.get("runc") else ""
    written = f"{count(found.streams, 'stream')}, {count(found.chunks, 'chunk')}, {found.codec}"
    rows = [
        ("path", found.path),
        ("name", found.name or ""),
        ("pod", _pod(found.pod) if found.pod else ""),
        ("kind", found.kind),
        ("taken", f"{found.created_at} on {host['name']}"),
        ("by", f"checkpoint-agent {found.agent_version}, CRIU {host['criu']}{runc}"),
        ("kernel", f"{host['kernel']} {host['architecture']}"),
        ("frozen", duration(found.frozen_seconds)),
        ("GPUs", _gpus(found.gpus) if found.gpus else ""),
        ("raw", size(found.bytes_raw)),
        ("stored", stored(found.bytes_stored, found.bytes_raw)),
        ("as", written),
        ("images", how_streamed(found.streamed, found.fallback_reason)),
        ("phases", phases(found.phases)),
        ("volumes", ", ".join(map(_volume, found.volumes))),
    ]
    return Group(facts(rows), *(part for one in found.members for part in _member(one)))


def _member(member: MemberInspection) -> Iterator[RenderableType]:
    kind = "container" if member.kind == "runc" else "process"
    called = f"{member.name}: " if member.name != member.target else ""
    largest = max(member.images, key=lambda image: image.size, default=None)
    images = count(len(member.images), "image")
    rows = [
        ("bundle", member.bundle or ""),
        ("runc root", member.runc_root or ""),
        ("options", _options(member.options)),
        ("shared", size(member.shared_memory) if member.shared_memory else ""),
        ("images", f"{images}, the largest {largest.name} {size(largest.size)}" if largest else ""),
        ("criu", _criu_times(member.criu_stats)),
    ]
    yield Text()
    yield Text(printable(f"{called}{kind} {member.target}, pid {member.pid}"), "bold")
    yield facts(rows)
    yield Text()
    yield listing(_COLUMNS, map(_row, *_forest(member.processes)), right=_FIGURES)


def _pod(pod: dict[str, str]) -> str:
    return f"{pod['namespace']}/{pod['name']} {pod['uid']}"


def _gpus(gpus: dict[str, Any]) -> str:
    """Those that were used, and by whom."""
    used = counted([each["model"] for each in gpus["devices"] if each["used"]])
    return f"{used} by {', '.join(gpus['members'])}, driver {gpus['driver']}"


def _volume(volume: VolumeSize) -> str:
    return f"{volume.name} ({volume.medium}) {size(volume.size)}"


def _options(options: dict[str, object]) -> str:
    """Those that differ from having been given nothing."""
    on = [name for name, value in options.items() if value is True]
    return ", ".join([*on, f"cgroups {options.get('manage_cgroups_mode', 'soft')}"])


def _criu_times(stats: dict[str, int]) -> str:
    """CRIU's own account, from its microseconds."""
    names = ("freezing", "frozen", "memdump", "memwrite")
    times = {name: stats[f"{name}_time"] / 1e6 for name in names if f"{name}_time" in stats}
    return phases(times)


def _row(process: Process, depth: int) -> tuple[str, ...]:
    return (
        "  " * min(depth, DEEPEST) + (process.name or "?"),
        str(process.pid),
        process.state,
        str(process.threads),
        size(process.memory_saved),
        size(process.memory_mapped),
        str(sum(process.open_files.values())),
    )


def _forest(processes: Sequence[Process]) -> tuple[list[Process], list[int]]:
    """Each process after its parent, and how deep it is; a damaged tree loses none."""
    children: defaultdict[int, list[Process]] = defaultdict(list)
    known = {process.pid for process in processes}
    for process in processes:
        children[process.ppid if process.ppid != process.pid else 0].append(process)
    order: dict[int, tuple[Process, int]] = {}

    def walk(process: Process, depth: int) -> None:
        waiting = [(process, depth)]
        while waiting:
            one, at = waiting.pop()
            if one.pid not in order:
                order[one.pid] = (one, at)
                waiting += [(child, at + 1) for child in reversed(children[one.pid])]

    roots = [process for process in processes if process.ppid not in known]
    for process in [*roots, *processes]:
        walk(process, 0)
    return [process for process, _ in order.values()], [depth for _, depth in order.values()]
