"""The launcher as runc starts it, between a runc, an agent and a CRIU that are played here."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycriu import rpc_pb2

from agent.capture.streamer import SOCKET
from agent.config import Tools
from agent.host import criu, process
from tests.fakes.agent_end import AgentEnd
from tests.fakes.criu_program import CriuProgram, criu_program
from tests.fakes.runc_end import RuncEnd
from tests.waiting import eventually

SERVE_SOCKET = "streamer-serve.sock"
VERSION = rpc_pb2.criu_req(type=rpc_pb2.VERSION).SerializeToString()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentEnd]:
    with AgentEnd(tmp_path / "images", SOCKET) as end:
        yield end


@pytest.fixture
def directory(agent: AgentEnd) -> Iterator[int]:
    """A descriptor of the images directory, as runc opens one."""
    descriptor = os.open(agent.images, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def install(program: CriuProgram, extra: tuple[str, ...] = ()) -> Path:
    """A launcher that takes ``program`` for the real CRIU."""
    tools = Tools(criu=program.path, runc=Path("/nowhere/runc"))
    return criu.install_launcher(program.directory / "launcher", tools, extra)


def dump(directory: int, **options: Any) -> bytes:  # noqa: ANN401 - whatever the fields hold
    """A request to dump, as runc makes it."""
    values = {"images_dir_fd": directory, "notify_scripts": True} | options
    request = rpc_pb2.criu_req(type=rpc_pb2.DUMP, opts=rpc_pb2.criu_opts(**values))
    return bytes(request.SerializeToString())


def test_what_is_no_dump_is_left_to_the_real_criu_unread(tmp_path: Path) -> None:
    program = criu_program(tmp_path / "criu", end="exit 5")

    with RuncEnd(install(program), VERSION) as runc:
        assert runc.wait() == 5

    assert program.argv() == ["swrk", "3"]
    assert program.message() == VERSION
    assert program.descriptors() >= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("streamer", "kind"),
    [(None, rpc_pb2.DUMP), (SERVE_SOCKET, rpc_pb2.DUMP), (SOCKET, rpc_pb2.RESTORE)],
)
def test_so_is_a_dump_that_nobody_waits_for(
    tmp_path: Path, streamer: str | None, kind: int
) -> None:
    program = criu_program(tmp_path / "criu")
    with AgentEnd(tmp_path / "images", streamer) as agent:
        directory = os.open(agent.images, os.O_RDONLY)
        options = rpc_pb2.criu_opts(images_dir_fd=directory)
        request = rpc_pb2.criu_req(type=kind, opts=options).SerializeToString()
        with RuncEnd(install(program), request) as runc:
            assert runc.wait() == 0
        os.close(directory)

    assert program.message() == request


def test_so_is_a_dump_into_a_directory_that_is_none(tmp_path: Path) -> None:
    program = criu_program(tmp_path / "criu")
    request = dump(-1, images_dir=str(tmp_path))

    with RuncEnd(install(program), request) as runc:
        assert runc.wait() == 0

    assert program.message() == request


@pytest.mark.parametrize("words", [("--version",), ("check", "--all"), ("swrk",), ()])
def test_other_command_lines_are_the_real_criu_s(tmp_path: Path, words: tuple[str, ...]) -> None:
    program = criu_program(tmp_path / "criu")

    with RuncEnd(install(program), VERSION, words=words) as runc:
        assert runc.wait() == 0

    assert program.argv() == (list(words) or [""])


def test_a_dump_is_streamed(tmp_path: Path, agent: AgentEnd, directory: int) -> None:
    program = criu_program(tmp_path / "criu")
    request = dump(directory, work_dir_fd=directory, pid=5, tcp_established=True, log_file="x.log")

    with RuncEnd(install(program, ("--tcp-close",)), request) as runc:
        response = runc.receive()
        assert (response.type, response.success) == (rpc_pb2.DUMP, True)
        with pytest.raises(EOFError):
            runc.receive()
        assert runc.wait() == 0

    images = f"/proc/{os.getpid()}/fd/{directory}"
    assert program.argv() == [
        *("dump", "--tree", "5", "--tcp-established", "--log-file", "x.log"),
        *("--tcp-close", "--stream", "--images-dir", images, "--work-dir", images),
        *("--action-script", str(program.directory / "launcher" / "hook")),
    ]
    assert agent.hear() == ""


def test_logs_go_beside_the_images_when_runc_names_no_place(
    tmp_path: Path, agent: AgentEnd, directory: int
) -> None:
    program = criu_program(tmp_path / "criu")

    with RuncEnd(install(program), dump(directory)) as runc:
        assert runc.receive().success

    words = program.argv()
    assert words[words.index("--work-dir") + 1] == words[words.index("--images-dir") + 1]
    assert agent.hear() == ""


def test_a_restore_is_streamed(tmp_path: Path) -> None:
    program = criu_program(tmp_path / "criu", ["post-restore"])
    with AgentEnd(tmp_path / "images", SERVE_SOCKET) as agent:
        directory = os.open(agent.images, os.O_RDONLY)
        options = rpc_pb2.criu_opts(images_dir_fd=directory, notify_scripts=True, rst_sibling=True)
        request = rpc_pb2.criu_req(type=rpc_pb2.RESTORE, opts=options).SerializeToString()
        with RuncEnd(install(program), request) as runc:
            assert runc.receive_notice() == ("post-restore", 4711)
            runc.answer()
            response = runc.receive()
            assert (response.type, response.success) == (rpc_pb2.RESTORE, True)
            assert runc.wait() == 0
        os.close(directory)

        assert agent.hear() == "hook post-restore 4711"
    assert program.argv()[0] == "restore"
    assert {"--restore-sibling", "--restore-detached", "--stream"} <= set(program.argv())


@pytest.mark.parametrize(("end", "status"), [("exit 3", 3), ("kill -KILL $$", 128 + 9)])
def test_a_failure_of_criu_is_passed_on(
    tmp_path: Path, agent: AgentEnd, directory: int, end: str, status: int
) -> None:
    program = criu_program(tmp_path / "criu", end=end)

    with RuncEnd(install(program), dump(directory)) as runc:
        response = runc.receive()
        assert (response.type, response.success) == (rpc_pb2.DUMP, False)
        assert runc.wait() == status
    assert agent.hear() == ""


def test_what_criu_inherits(tmp_path: Path, agent: AgentEnd, directory: int) -> None:
    """What runc passes on for the container (inherit_fd) arrives; the RPC socket does not."""
    program = criu_program(tmp_path / "criu")
    pipes = [os.pipe() for _ in range(4)]
    out, err, four, five = (write for _, write in pipes)
    with (
        open(os.devnull) as nothing,
        RuncEnd(
            install(program),
            dump(directory),
            more=(four, five),
            standard=(nothing.fileno(), out, err),
        ) as runc,
    ):
        assert runc.receive().success
        assert runc.wait() == 0

    assert program.descriptors() == {0, 1, 2, 4, 5}
    assert signal.SIGPIPE not in program.ignored_signals()
    for (read, write), number in zip(pipes, (1, 2, 4, 5), strict=True):
        os.close(write)
        with open(read) as file:
            assert file.read() == f"written to {number}\n"
    assert agent.hear() == ""


def test_what_cannot_be_said_in_words_is_told_to_the_agent(
    tmp_path: Path, agent: AgentEnd, directory: int
) -> None:
    program = criu_program(tmp_path / "criu")

    with RuncEnd(install(program), dump(directory, lazy_pages=True)) as runc:
        assert agent.hear() == "fallback lazy_pages"
        # The agent has heard it before runc fails, and so before anybody asks for the reason.
        assert not select.select([runc.socket], [], [], 0)[0]
        agent.say("ok")
        response = runc.receive()
        assert (response.type, response.success) == (rpc_pb2.DUMP, False)
        assert runc.wait() == 1

    assert agent.hear() == ""
    assert not program.started


def test_and_not_waited_for_when_the_agent_is_gone(
    tmp_path: Path, agent: AgentEnd, directory: int
) -> None:
    with RuncEnd(
        install(criu_program(tmp_path / "criu")), dump(directory, lazy_pages=True)
    ) as runc:
        agent.hear()
        agent.die()

        assert runc.receive().success is False
        assert runc.wait() == 1


def test_without_an_agent_nothing_is_begun(tmp_path: Path) -> None:
    program = criu_program(tmp_path / "criu")
    with AgentEnd(tmp_path / "images", SOCKET, control=False) as agent:
        directory = os.open(agent.images, os.O_RDONLY)
        with RuncEnd(install(program), dump(directory)) as runc:
            assert runc.wait() != 0
            with pytest.raises((EOFError, ConnectionResetError)):
                runc.receive()
        os.close(directory)

    assert not program.started


def test_started_by_the_agent_itself(tmp_path: Path, agent: AgentEnd) -> None:
    """For a process tree: no runc, and the hooks are the agent's alone."""
    program = criu_program(tmp_path / "criu", ["pre-dump", "post-dump"], end="exit 2")
    words = ("direct", str(agent.images), "dump", "--tree", "5")

    with RuncEnd(install(program), b"", words=words) as runc:
        assert agent.hear() == "hook pre-dump 4711"
        assert agent.hear() == "hook post-dump 4711"
        assert not select.select([runc.socket], [], [], 0)[0]
        agent.say("ok")
        assert runc.wait() == 2

    *words_of_dump, images = program.argv()[:-2]
    assert words_of_dump == ["dump", "--tree", "5", "--stream", "--images-dir"]
    # Short, whatever the directory's name: CRIU connects to sockets in it.
    assert images.startswith("/proc/")
    assert program.answers() == [("pre-dump", 0), ("post-dump", 0)]


def test_nothing_of_it_outlives_it(tmp_path: Path, agent: AgentEnd, directory: int) -> None:
    program = criu_program(tmp_path / "criu", ["pre-dump"])

    with RuncEnd(install(program), dump(directory)) as runc:
        assert runc.receive_notice() == ("pre-dump", 4711)
        runc.answer()
        assert runc.receive().success
        assert runc.wait() == 0

    assert agent.hear() == "hook pre-dump 4711"
    eventually(lambda: not process.is_alive(program.pid()))


# Each costs milliseconds, and the launcher starts inside the operation, three times.
HEAVY = {
    *("socket", "json", "typing", "dataclasses", "re", "subprocess", "enum", "pathlib", "asyncio"),
    *("logging", "inspect", "google", "pydantic", "signal", "collections", "functools", "site"),
}


def test_it_loads_little(tmp_path: Path) -> None:
    program = criu_program(tmp_path / "criu")
    launcher, listing = install(program), tmp_path / "modules"
    lines = launcher.read_text().splitlines()
    assert lines[0].endswith(" -IS")
    lines.insert(-1, f"open({str(listing)!r}, 'w').write(' '.join(sys.modules))")
    launcher.write_text("\n".join(lines))

    with RuncEnd(launcher, b"", words=("--version",)) as runc:
        assert runc.wait() == 0

    loaded = set(listing.read_text().split())
    assert "agent.host.launcher.main" in loaded
    assert not loaded & HEAVY
