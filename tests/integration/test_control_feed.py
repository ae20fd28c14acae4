"""Reading what nodes have said: in order, from any place, whatever becomes of the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from nats.js import JetStreamContext

from agent.errors import BrokerFailed
from agent.events import Batch, Control, Position
from agent.messages.events import event_message
from agent.messages.model import ActionType, Event, State
from agent.messages.requests import to_json
from tests.controls import START, control_on, is_ready, read_all
from tests.event_agents import looking, waiting_in
from tests.servers.nats import NatsServer, nats_server
from tests.servers.nats_client import PlainClient
from tests.waiting import PATIENCE, eventually_async

STREAM = "ACTION_EVENTS"


def event(action_id: str, sequence: int = 1) -> bytes:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    said = Event(action_id, sequence, State.PROCESSING, ActionType.CHECKPOINT, time)
    return to_json(event_message(said, cluster="test", node="node-a"))


def say(server: NatsServer, numbers: Iterable[int]) -> None:
    """Publish the events of actions a<number>."""
    with PlainClient(server.port) as client:
        for number in numbers:
            client.send(f"action-events.test.a{number}", event(f"a{number}"))
        client.flush()


def ids(batch: Batch) -> list[str]:
    return [stored.event.action_id if stored.event else "-" for stored in batch.events]


def named(numbers: Iterable[int]) -> list[str]:
    return [f"a{number}" for number in numbers]


async def readers(js: JetStreamContext) -> int:
    return len(await js.consumers_info(STREAM))


async def test_events_come_in_order_and_no_more_than_asked_for(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        say(broker, range(1200))
        batch = await control.read(START, 500, 1.0)
        assert ids(batch) == named(range(500))
        assert [stored.sequence for stored in batch.events] == list(range(1, 501))
        first = batch.events[0]
        assert (first.cluster, first.node, first.payload) == ("test", "node-a", event("a0"))
        assert batch.position.sequence == 500
        assert not batch.at_end
        batch = await control.read(batch.position, 500, 1.0)
        assert ids(batch) == named(range(500, 1000))
        assert not batch.at_end
        batch = await control.read(batch.position, 500, 1.0)
        assert ids(batch) == named(range(1000, 1200))
        assert batch.at_end
        assert batch.position.sequence == 1200
        # Whoever goes on where it was needs no second one.
        assert await readers(js) == 1


async def test_with_nothing_to_read_it_waits_as_long_as_it_was_told(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            batch = await control.read(START, 10, 0.0)
            assert batch.events == ()
            before = loop.time()
            batch = await control.read(batch.position, 10, 1.5)
            assert batch.events == ()
            assert loop.time() - before > 1.4
        assert batch.position.sequence == 0
        assert batch.position.stream


async def test_it_wakes_at_once(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        position = (await control.read(START, 10, 0.0)).position
        for number in range(3):
            # Longer than any test may take: if it waited for its end, this would fail.
            reading = asyncio.ensure_future(control.read(position, 10, 3600.0))
            await asyncio.sleep(0.2)
            assert not reading.done()
            say(broker, [number])
            batch = await asyncio.wait_for(reading, PATIENCE)
            assert ids(batch) == named([number])
            position = batch.position


async def test_another_one_goes_on_where_one_was(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        say(broker, range(10))
        position = (await control.read(START, 4, 1.0)).position
    broker.kill()
    broker.start()
    async with control_on(broker) as control:
        assert ids(await read_all(control, position)) == named(range(4, 10))
        # Back and forth, too.
        assert ids(await read_all(control)) == named(range(10))
        assert ids(await control.read(position, 2, 1.0)) == named([4, 5])


async def test_a_session_that_ended_costs_no_event(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        say(broker, range(3))
        position = (await control.read(START, 10, 1.0)).position
        broker.kill()
        with pytest.raises(BrokerFailed):
            await control.read(position, 10, 30.0)
        broker.start()
        await is_ready(control)
        say(broker, range(3, 6))
        assert ids(await read_all(control, position)) == named(range(3, 6))


async def test_a_read_that_was_cancelled_costs_no_event(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        position = (await control.read(START, 10, 0.0)).position
        for number in range(20):
            reading = asyncio.ensure_future(control.read(position, 10, 30.0))
            await asyncio.sleep(0.01)
            say(broker, [number])
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert ids(await read_all(control, position)) == named(range(20))


async def test_two_may_read_at_the_same_time(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        say(broker, range(1000))
        both = await asyncio.gather(read_all(control, limit=7), read_all(control, limit=50))
        assert [ids(batch) for batch in both] == [named(range(1000))] * 2


async def test_a_stream_that_was_made_anew_is_read_from_its_beginning(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        say(broker, range(5))
        position = (await control.read(START, 3, 1.0)).position
        config = (await js.stream_info(STREAM)).config
        await js.delete_stream(STREAM)
        await js.add_stream(config)
        say(broker, range(10, 15))
        batch = await control.read(position, 10, 1.0)
        assert ids(batch) == named(range(10, 15))
        assert batch.position.stream != position.stream
        assert batch.position.sequence == 5


async def test_a_stream_that_vanished_is_made_again(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        say(broker, range(5))
        position = (await control.read(START, 10, 1.0)).position
        await js.delete_stream(STREAM)
        with pytest.raises(BrokerFailed, match=STREAM):
            await control.read(position, 10, 1.0)

        async def made() -> bool:
            return await waiting_in(js, STREAM) == 0

        await eventually_async(made, "the stream")
        await is_ready(control)
        say(broker, [7])
        assert ids(await control.read(position, 10, 1.0)) == named([7])


async def test_what_is_too_old_is_passed_over(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        say(broker, range(10))
        position = (await control.read(START, 2, 1.0)).position
        await js.purge_stream(STREAM, seq=8)
        batch = await control.read(position, 10, 1.0)
        assert ids(batch) == named([7, 8, 9])
        assert [stored.sequence for stored in batch.events] == [8, 9, 10]


async def test_a_place_that_the_stream_does_not_reach_is_no_place(broker: NatsServer) -> None:
    async with control_on(broker) as control:
        say(broker, range(3))
        stream = (await control.read(START, 10, 1.0)).position.stream
        batch = await control.read(Position(stream, 1000), 10, 1.0)
        assert ids(batch) == named(range(3))
        assert batch.position == Position(stream, 3)


async def test_a_reader_that_the_broker_has_forgotten_is_made_again(broker: NatsServer) -> None:
    async with control_on(broker) as control, looking(broker) as js:
        say(broker, range(4))
        position = (await control.read(START, 2, 1.0)).position
        for consumer in await js.consumers_info(STREAM):
            await js.delete_consumer(STREAM, consumer.name)
        assert ids(await control.read(position, 10, 1.0)) == named([2, 3])
        # And while somebody waits.
        reading = asyncio.ensure_future(control.read(Position(position.stream, 4), 10, 30.0))
        await asyncio.sleep(0.2)
        for consumer in await js.consumers_info(STREAM):
            await js.delete_consumer(STREAM, consumer.name)
        say(broker, [4])
        assert ids(await reading) == named([4])


async def test_what_is_no_event_is_told_and_got_past(broker: NatsServer) -> None:
    subject = "action-events.test.a1"
    async with control_on(broker) as control, looking(broker) as js:
        with PlainClient(broker.port) as client:
            client.send(subject, event("a1"))
            client.send(subject, b"")
            client.send(subject, b'{"actionId": "a1"')
            client.send(subject, event("another"))
            client.send(subject, b"\xff" * 1000)
            client.send("action-events.prod.a1", event("a1"))
            client.flush()
        await js.publish(subject, event("a1", 2), headers={"Status": "409", "Description": "No"})
        batch = await control.read(START, 10, 1.0)
        assert ids(batch) == ["a1", "-", "-", "-", "-", "-", "a1"]
        assert batch.events[2].payload == b'{"actionId": "a1"'
        assert batch.position.sequence == 7
        assert {(stored.cluster, stored.node) for stored in batch.events[1:6]} == {("", "")}


async def test_megabytes_are_read_in_pieces_and_the_largest_too(broker: NatsServer) -> None:
    folder = broker.root / "large"
    folder.mkdir()
    with nats_server(folder, max_payload=32 << 20) as server:
        async with control_on(server) as control:
            with PlainClient(server.port) as client:
                for _ in range(20):
                    client.publish("action-events.test.big", b"x" * (1 << 20))
                client.publish("action-events.test.big", b"x" * (20 << 20))
            say(server, [1])
            batch = await control.read(START, 50, 5.0)
            assert 10 < len(batch.events) < 17
            rest = await read_all(control, batch.position, 50)
            assert ids(rest) == ["-"] * (21 - len(batch.events)) + ["a1"]
            assert await _sizes(control) == [1 << 20] * 20 + [20 << 20, len(event("a1"))]


async def _sizes(control: Control) -> list[int]:
    return [len(stored.payload) for stored in (await read_all(control)).events]
