"""Errors on their way through gRPC: what plain clients read, and what ours makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    ErrorInfo,
)
from grpc_status import rpc_status

from agent import errors
from agent.cli.errors import exit_code, to_document
from agent.errors import AgentError, DumpFailed, Interrupted, InvalidArgument, TargetBusy
from agent.messages.model import Failure
from agent.pb.checkpoint_agent.v1 import actions_pb2 as events_pb
from agent.pb.checkpoint_agent.v1 import agent_pb2 as pb
from agent.pb.checkpoint_agent.v1.agent_pb2_grpc import AgentStub
from agent.rpc.channel import Tls
from agent.rpc.client import connect
from agent.rpc.status import error_of, failure_of, grpc_code, text_of, trailing_metadata
from tests.rpc_servers import Running, running, settings_in


def _classes(kind: type[AgentError] = AgentError) -> Iterator[type[AgentError]]:
    for one in kind.__subclasses__():
        if one.__module__.startswith(f"{errors.__name__}."):
            yield one
            yield from _classes(one)


@pytest.mark.parametrize("kind", list(_classes()))
def test_every_error_has_a_status_and_comes_back_as_itself(kind: type[AgentError]) -> None:
    untyped: Any = kind
    fields = dataclasses.fields(untyped) if dataclasses.is_dataclass(untyped) else ()
    numbers = ("int", "float")
    values = {one.name: 17 if one.type in numbers else f"<{{{one.name}}}>" for one in fields}
    error = kind(**values)
    assert grpc_code(Failure.of(error)) is not grpc.StatusCode.INTERNAL
    failure = failure_of(trailing_metadata(Failure.of(error)))
    assert failure is not None
    again = error_of(failure)
    # A class without a code of its own comes back as the one whose code it has.
    assert isinstance(again, kind if "code" in vars(kind) else kind.__mro__[1])
    assert (str(again), again.state, again.hint) == (str(error), error.state, error.hint)
    assert exit_code(again) == exit_code(error)
    assert to_document(again) == to_document(error)


def test_a_bug_has_a_status_too() -> None:
    assert grpc_code(Failure.of(AgentError())) is grpc.StatusCode.INTERNAL
    assert type(error_of(Failure("internal", "it broke"))).__mro__[1] is AgentError


def test_an_error_of_a_newer_agent_keeps_its_words() -> None:
    told = error_of(Failure("from_the_future", "no {such} thing", "all is well", "try again"))
    assert (told.code, str(told), told.state, told.hint) == (
        "from_the_future", "no {such} thing", "all is well", "try again",
    )  # fmt: skip
    assert exit_code(told) == 1


def test_a_signals_exit_code_survives() -> None:
    failure = Failure.of(Interrupted("SIGTERM", 15))
    assert exit_code(error_of(failure)) == 143


@pytest.mark.parametrize("letter", ["l", "\u6f22", "\U0001f600", "\udcff", "\n"])
def test_what_is_too_large_for_gRPC_is_cut(letter: str) -> None:
    text = letter * 100_000
    error = DumpFailed(f"it {text}", text, log_tail=f"{text}the end")
    ((_, data),) = trailing_metadata(Failure.of(error))
    # Beside it goes the text, as a URL would have it.
    header = quote(text_of(Failure.of(error)), safe=" :\\")
    assert len(data) + len(header) < 8 << 10
    failure = failure_of(trailing_metadata(Failure.of(error)))
    assert failure is not None
    assert failure.log_tail.endswith("the end")
    assert len(failure.message) > 200


@pytest.mark.parametrize(
    "metadata", [(), (("other", "x"),), (("grpc-status-details-bin", b"\xff\xff"),)]
)
def test_what_another_program_answers_is_no_failure_of_ours(
    metadata: tuple[tuple[str, str | bytes], ...],
) -> None:
    assert failure_of(metadata) is None


async def test_a_plain_client_reads_the_details(tmp_path: Path) -> None:
    async with running(settings_in(tmp_path)) as agent:
        status = await asyncio.to_thread(_refused_status, agent)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    info, bad = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("invalid_argument", "checkpoint-agent")
    assert info.metadata["state"] == "nothing was touched"
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "checkpoint.process.pid"
    assert "1 is no process" in bad.field_violations[0].description


def _refused_status(agent: Running) -> Any:  # noqa: ANN401 - a google.rpc.Status, without types
    """What a client without asyncio, which knows nothing of our own errors, finds."""
    request = events_pb.CheckpointRequest(process=events_pb.ProcessRef(pid=1))
    with grpc.insecure_channel(agent.address) as channel:
        with pytest.raises(grpc.RpcError) as error:
            AgentStub(channel).Checkpoint(pb.CheckpointCall(request=request))
        call: Any = error.value
        return rpc_status.from_call(call)


async def test_a_bug_is_logged_and_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    settings = settings_in(tmp_path)
    async with running(settings) as agent:
        # Nobody has foreseen a service that is used after its end.
        agent.server.service.close_reads()
        async with connect(agent.address, Tls()) as client:
            with pytest.raises(AgentError) as error:
                await client.list_checkpoints("")
    assert error.value.code == "internal"
    assert str(error.value) == "unexpected error"
    assert "a bug in the service" in caplog.text


async def test_our_client_raises_what_the_agent_raised(tmp_path: Path) -> None:
    async with (
        running(settings_in(tmp_path)) as agent,
        connect(agent.address, Tls()) as client,
    ):
        with pytest.raises(InvalidArgument) as error:
            await client.inspect("/etc/passwd")
    assert error.value.argument == "path"


def test_numbers_are_whole_again() -> None:
    error = error_of(Failure.of(TargetBusy("it", 4711)))
    assert error.fields() == {"target": "it", "owner_pid": 4711}
    assert isinstance(error.fields()["owner_pid"], int)
