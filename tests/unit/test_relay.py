"""CRIU's hooks on their way to the agent and to runc, and what becomes of them when one dies."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pycriu import rpc_pb2

from agent.capture.streamer import SOCKET
from agent.config import Tools
from agent.host import criu, process
from tests.fakes.agent_end import AgentEnd
from tests.fakes.criu_program import CriuProgram, criu_program
from tests.fakes.runc_end import RuncEnd
from tests.waiting import eventually


@dataclass
class Play:
    """A dump under way: its CRIU is about to run its first hook."""

    criu: CriuProgram
    agent: AgentEnd
    runc: RuncEnd

    def outcome(self) -> list[tuple[str, int]]:
        """Hooks and their results, when CRIU has ended."""
        eventually(lambda: self.criu.started and not process.is_alive(self.criu.pid()), "its end")
        return self.criu.answers()


@contextmanager
def playing(tmp_path: Path, *hooks: str, notify: bool = True) -> Iterator[Play]:
    program = criu_program(tmp_path / "criu", hooks)
    tools = Tools(criu=program.path, runc=Path("/nowhere/runc"))
    launcher = criu.install_launcher(tmp_path / "launcher", tools)
    with AgentEnd(tmp_path / "images", SOCKET) as agent:
        directory = os.open(agent.images, os.O_RDONLY)
        options = rpc_pb2.criu_opts(images_dir_fd=directory, notify_scripts=notify)
        request = rpc_pb2.criu_req(type=rpc_pb2.DUMP, opts=options).SerializeToString()
        try:
            with RuncEnd(launcher, request) as runc:
                yield Play(program, agent, runc)
        finally:
            os.close(directory)


def rest(runc: RuncEnd) -> list[int]:
    """Types of all responses until the other end has hung up."""
    types = []
    while True:
        try:
            types.append(runc.receive().type)
        except EOFError:
            return types


def test_hooks_reach_the_agent_and_then_runc_in_order(tmp_path: Path) -> None:
    with playing(tmp_path, "pre-dump", "network-lock", "post-dump") as play:
        for hook in ("pre-dump", "network-lock", "post-dump"):
            assert play.agent.hear() == f"hook {hook} 4711"
            if hook == "post-dump":
                play.agent.say("ok")
            assert play.runc.receive_notice() == (hook, 4711)
            play.runc.answer()
        response = play.runc.receive()

        assert (response.type, response.success) == (rpc_pb2.DUMP, True)
        assert play.runc.wait() == 0
        assert play.outcome() == [("pre-dump", 0), ("network-lock", 0), ("post-dump", 0)]


def test_the_streaming_hook_is_unknown_to_runc(tmp_path: Path) -> None:
    with playing(tmp_path, "pre-stream", "pre-dump") as play:
        assert play.runc.receive_notice() == ("pre-dump", 4711)
        play.runc.answer()
        assert play.runc.receive().success

        assert play.agent.hear() == "hook pre-stream 4711"
        assert play.agent.hear() == "hook pre-dump 4711"


def test_hooks_that_nobody_asked_for_are_the_agent_s_alone(tmp_path: Path) -> None:
    with playing(tmp_path, "pre-dump", notify=False) as play:
        assert play.runc.receive().type == rpc_pb2.DUMP
        assert play.agent.hear() == "hook pre-dump 4711"


def test_what_runc_refuses_fails_in_criu(tmp_path: Path) -> None:
    with playing(tmp_path, "pre-dump", "post-dump") as play:
        play.runc.receive_notice()
        play.runc.answer(agreed=False)
        play.agent.hear()
        play.agent.hear()
        play.agent.say("ok")
        play.runc.receive_notice()
        play.runc.answer()
        response = play.runc.receive()

        assert (response.type, response.success) == (rpc_pb2.DUMP, False)
        assert play.runc.wait() == 1
        assert play.outcome() == [("pre-dump", 1), ("post-dump", 0)]


def test_post_dump_is_held_until_the_agent_has_everything(tmp_path: Path) -> None:
    with playing(tmp_path, "post-dump") as play:
        assert play.agent.hear() == "hook post-dump 4711"
        # The launcher has said all it had to say, so only the agent's word can make a difference.
        assert play.criu.answers() == []
        assert not select.select([play.runc.socket], [], [], 0)[0]
        play.agent.say("ok")

        assert play.runc.receive_notice() == ("post-dump", 4711)
        play.runc.answer()
        assert play.runc.receive().success


@pytest.mark.parametrize("word", ["no", "okay", ""])
def test_any_other_word_of_the_agent_fails_the_hook(tmp_path: Path, word: str) -> None:
    with playing(tmp_path, "post-dump") as play:
        play.agent.hear()
        play.agent.say(word)

        assert play.runc.receive().success is False
        assert play.outcome() == [("post-dump", 1)]


def test_an_agent_that_dies_while_criu_is_held(tmp_path: Path) -> None:
    with playing(tmp_path, "post-dump") as play:
        play.agent.hear()
        play.agent.die()

        assert play.runc.receive().success is False
        assert play.runc.wait() == 1
        assert play.outcome() == [("post-dump", 1)]


def test_an_agent_that_died_before(tmp_path: Path) -> None:
    with playing(tmp_path, "pre-dump", "post-dump") as play:
        play.runc.receive_notice()
        play.agent.hear()
        play.agent.die()
        play.runc.answer()

        assert play.runc.receive().success is False
        assert play.outcome() == [("pre-dump", 0), ("post-dump", 1)]


def test_a_runc_that_dies_while_a_hook_waits_for_it(tmp_path: Path) -> None:
    with playing(tmp_path, "pre-dump", "network-lock") as play:
        play.runc.receive_notice()
        play.runc.socket.close()

        assert play.runc.wait() == 1
        assert [result != 0 for _, result in play.outcome()] == [True, True]


def test_a_runc_that_died_before(tmp_path: Path) -> None:
    with playing(tmp_path, "post-dump", "pre-resume") as play:
        play.agent.hear()
        play.runc.socket.close()
        play.agent.say("ok")

        assert play.runc.wait() == 1
        assert [result != 0 for _, result in play.outcome()] == [True, True]


@pytest.mark.parametrize("hook", ["pre-dump", "post-dump"])
def test_a_launcher_that_is_killed_while_a_hook_waits(tmp_path: Path, hook: str) -> None:
    """CRIU must neither hang nor go on: the script's answer and all later ones are failures."""
    with playing(tmp_path, hook, "network-unlock") as play:
        assert play.agent.hear() == f"hook {hook} 4711"
        play.runc.kill()
        play.runc.wait()

        assert [result != 0 for _, result in play.outcome()] == [True, True]
        assert rpc_pb2.DUMP not in rest(play.runc)


def test_a_criu_that_is_killed_while_a_hook_waits(tmp_path: Path) -> None:
    with playing(tmp_path, "post-dump") as play:
        play.agent.hear()
        os.kill(play.criu.pid(), 9)
        play.agent.say("ok")
        play.runc.receive_notice()
        play.runc.answer()

        assert play.runc.receive().success is False
        assert play.runc.wait() == 128 + 9
