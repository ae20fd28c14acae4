"""CRIU's command lines, its log and its figures."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from pycriu.images import stats_pb2

from agent.config import Tools
from agent.host import criu
from agent.host.criu import DumpStats, read_dump_stats
from agent.manifest import Options

EVERYTHING = Options(
    tcp_established=True,
    tcp_close=True,
    ext_unix_sk=True,
    shell_job=True,
    file_locks=True,
    link_remap=True,
)
FLAGS = {
    *("--tcp-established", "--tcp-close", "--ext-unix-sk"),
    *("--shell-job", "--file-locks", "--link-remap"),
}
LOGGING = ["--work-dir", "/w", "--log-file", "dump.log", "--verbosity=4"]


def test_a_dump_s_command_line() -> None:
    words = criu.dump_arguments(5, Options(), work_dir=Path("/w"), leave_running=False)

    assert words == ["dump", "--tree", "5", *LOGGING]


def test_with_everything() -> None:
    words = criu.dump_arguments(5, EVERYTHING, work_dir=Path("/w"), leave_running=True)

    assert set(words[8:]) == FLAGS | {"--leave-running"}
    assert len(words) == 8 + len(FLAGS) + 1


def test_a_restore_s_command_line() -> None:
    words = criu.restore_arguments(EVERYTHING, work_dir=Path("/w"), pid_file=Path("/p"))

    assert words[:4] == ["restore", "--restore-detached", "--pidfile", "/p"]
    assert set(words) >= FLAGS
    assert "restore.log" in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(), []),
        (Options(tcp_close=True), ["--tcp-close"]),
        (Options(link_remap=True), ["--link-remap"]),
    ],
)
def test_what_runc_has_no_words_for(options: Options, words: list[str]) -> None:
    assert criu.unknown_to_runc(options) == words


def test_the_launcher_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = criu.install_launcher(tmp_path / "launcher", Tools(Path("/c'riu"), Path("/runc")))

    assert path.name == "criu"
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o700
    compile(path.read_text(), "criu", "exec")
    assert criu.launcher_environment(path.parent)["PATH"].split(":")[0] == str(path.parent)
    with pytest.raises(FileExistsError):
        criu.install_launcher(tmp_path / "launcher", Tools(Path("/criu"), Path("/runc")))


def test_what_runc_has_no_words_for_is_in_a_file_too(tmp_path: Path) -> None:
    extra = ["--tcp-close", "--ghost-limit=4096", "--join-ns", 'ipc:/proc/1/a "b" # c', "--x"]
    tools = Tools(Path("/criu"), Path("/runc"))
    path = criu.install_launcher(tmp_path / "launcher", tools, extra)
    assert (path.parent / "criu.conf").read_text().splitlines() == [
        "tcp-close", "ghost-limit=4096", 'join-ns "ipc:/proc/1/a \\"b\\" # c"', "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("", ""),
        ("one\ntwo\n", "one\ntwo"),
        ("\n".join(f"line {n}" for n in range(20)), "\n".join(f"line {n}" for n in range(8, 20))),
        ("fine\n(0.1) Error (criu/x.c:1): no\nfine\n(0.2) Error (y): nor\n", "no\nnor"),
    ],
)
def test_the_end_of_a_log(tmp_path: Path, text: str, tail: str) -> None:
    (tmp_path / "log").write_text(text)

    found = criu.log_tail(tmp_path / "log").splitlines()

    assert len(found) == len(tail.splitlines())
    assert all(line.endswith(end) for line, end in zip(found, tail.splitlines(), strict=True))


def test_logs_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    assert criu.log_tail(tmp_path / "log") == ""
    (tmp_path / "log").write_bytes(b"\xff\xfe")
    assert criu.log_tail(tmp_path / "log") == "\N{REPLACEMENT CHARACTER}" * 2


@pytest.mark.parametrize(
    ("log", "meaning"),
    [
        (
            "Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider ...",
            "--tcp-established",
        ),
        (
            "Error (criu/sk-inet.c:185): inet: In-flight connection (l) for f890\n"
            "In-flight connections can be ignored with the --skip-in-flight option.",
            "--tcp skip-in-flight",
        ),
        ("Error (soccr/soccr.c:499): Can't bind inet socket back: Cannot", "--tcp close"),
        ("Error (criu/sk-inet.c:1059): inet: Can't bind inet socket (id 3): Cannot", "bound to"),
        ("consider using --ext-unix-sk option", "--ext-unix-sk"),
        ("unix: Can't dump half of stream unix connection. name: /s", "not dumped with it"),
        ("all is well", ""),
    ],
)
def test_what_its_complaints_mean(log: str, meaning: str) -> None:
    assert meaning in criu.advice(log)
    assert bool(criu.advice(log)) is bool(meaning)


def stats(**figures: int) -> bytes:
    """A `stats-dump` image as CRIU writes it."""
    values = {field.name: 0 for field in stats_pb2.dump_stats_entry.DESCRIPTOR.fields}
    message = stats_pb2.stats_entry(dump=stats_pb2.dump_stats_entry(**values | figures))
    data = message.SerializeToString()
    return struct.pack("=III", 0x55105940, 0x57093306, len(data)) + bytes(data)


def test_figures_in_seconds() -> None:
    image = stats(freezing_time=1500, frozen_time=2_000_000, memdump_time=3, memwrite_time=4)

    assert read_dump_stats(image) == DumpStats(0.0015, 2.0)


def test_figures_of_a_restore_are_none() -> None:
    message = stats_pb2.stats_entry().SerializeToString()
    image = struct.pack("=III", 0, 0, len(message)) + message

    assert read_dump_stats(image) == DumpStats(0, 0)


@pytest.mark.parametrize("image", [b"", b"x" * 11, stats()[:-1], stats()[:12] + b"\xff" * 40])
def test_figures_that_are_damaged(image: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_dump_stats(image)


@pytest.mark.parametrize(
    ("log", "unlocked"),
    [
        ("(0.1) net: Unlock network\n(0.2) Unfreezing tasks into 1\n", True),
        ("(0.1) Error (criu/x.c:1): harmless\n(0.2) net: Unlock network\n(0.3) done\n", True),
        ("(0.1) net: Unlock network\n(0.2) Error (criu/util.c:657): exited, status=4\n", False),
        # Of a lower level.
        ("", True),
        ("(0.2) Error (criu/util.c:657): exited, status=4\n", False),
    ],
)
def test_whether_a_dump_has_opened_the_network(tmp_path: Path, log: str, unlocked: bool) -> None:
    path = tmp_path / "dump.log"
    assert criu.has_unlocked(path)
    path.write_text(log)
    assert criu.has_unlocked(path) == unlocked
