"""The two streams and the node's consumers: made where they are missing, used as they are.

What an operator has set up differently is left alone as long as our subjects fit into it; nothing
is ever deleted or made smaller here. proto/EVENTS.md gives the reasons for the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError, NotFoundError

from agent.errors import BrokerFailed
from agent.events import subjects
from agent.settings import Nats, Node

_DAY: Final = 86_400.0

# Bytes. So that a message that is far too big is still answered: brokers advise against more.
MAX_MESSAGE: Final = 8 << 20

# Of a stream: two of each node's. From 2.15 on a server allows 1000 where nothing is said, and
# takes no "unlimited" for an answer.
MAX_CONSUMERS: Final = 100_000

# Server's error codes: a stream of that name was made in the meantime, with another configuration;
# the account may not have so many consumers.
_NAME_IN_USE: Final = 10058
_TOO_MANY_CONSUMERS: Final = 10026

# By the name of the stream. A ``*`` stands for every word.
Subjects = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Consumers:
    """The node's two consumers as they are on the broker."""

    work: api.ConsumerConfig
    cancels: api.ConsumerConfig


def actions_stream(replicas: int) -> api.StreamConfig:
    """ACTIONS, for a broker that has none."""
    return api.StreamConfig(
        name=subjects.ACTIONS,
        description="Actions for nodes; each stays until its node has answered it",
        subjects=[subjects.ACTIONS_SUBJECTS],
        # An answered action is gone: a node whose consumer was lost repeats nothing.
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        max_consumers=MAX_CONSUMERS,
        max_age=_DAY,
        max_msgs=1_000_000,
        # A full stream refuses what is new; an action that was accepted is never dropped for it.
        discard=api.DiscardPolicy.NEW,
        max_msg_size=MAX_MESSAGE,
        duplicate_window=120,
        num_replicas=replicas,
    )


def events_stream(replicas: int) -> api.StreamConfig:
    """ACTION_EVENTS, for a broker that has none."""
    return api.StreamConfig(
        name=subjects.ACTION_EVENTS,
        description="What becomes of actions",
        subjects=[subjects.EVENTS_SUBJECTS],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        max_age=7 * _DAY,
        max_msgs=10_000_000,
        # Longer than most outages: what a broker stored without saying so comes again after one.
        duplicate_window=600,
        num_replicas=replicas,
    )


def subjects_of(node: Node) -> Subjects:
    """What one node hears and says."""
    return {
        subjects.ACTIONS: [
            subjects.action_subject(node, kind) for kind in (*subjects.WORK, subjects.CANCEL)
        ],
        subjects.ACTION_EVENTS: [subjects.event_subject(node.cluster, "id")],
    }


def subjects_of_all() -> Subjects:
    """What all nodes of all clusters hear and say: whoever asks any of them has to hear from it."""
    return {
        subjects.ACTIONS: [f"actions.*.*.{kind}" for kind in (*subjects.WORK, subjects.CANCEL)],
        subjects.ACTION_EVENTS: ["action-events.*.*"],
    }


async def ensure_streams(js: JetStreamContext, replicas: int, needed: Subjects) -> None:
    """Have both streams.

    Args:
        needed: what they have to take.

    Raises:
        BrokerFailed: one of that name does not take these subjects.
    """
    for config in (actions_stream(replicas), events_stream(replicas)):
        name = str(config.name)
        found = (await _stream(js, name, config)).config
        for subject in needed[name]:
            if not subjects.covers(found.subjects or (), subject):
                reason = f"stream {name} does not take subject {subject}"
                raise BrokerFailed(f"{reason}; it has {found.subjects}")


async def _stream(js: JetStreamContext, name: str, config: api.StreamConfig) -> api.StreamInfo:
    try:
        return await js.stream_info(name)
    except NotFoundError:
        pass
    try:
        return await js.add_stream(config)
    except BadRequestError as error:
        if error.err_code == _TOO_MANY_CONSUMERS and config.max_consumers is not None:
            # As many as the account may have, then.
            return await _stream(js, name, config.evolve(max_consumers=None))
        if error.err_code != _NAME_IN_USE:
            raise
        return await js.stream_info(name)


async def ensure_consumers(js: JetStreamContext, settings: Nats, node: Node) -> Consumers:
    """Have the node's consumers.

    Raises:
        BrokerFailed: one of that name has other subjects.
    """
    found = []
    for cancels, kinds in ((False, subjects.WORK), (True, (subjects.CANCEL,))):
        name = subjects.consumer_name(node, cancels=cancels)
        config = api.ConsumerConfig(
            durable_name=name,
            description=f"checkpoint-agent on {node.name}",
            filter_subjects=[subjects.action_subject(node, kind) for kind in kinds],
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=settings.ack_wait_seconds,
            max_deliver=settings.max_deliver,
            # The agent takes no more than it has room for.
            max_ack_pending=-1,
        )
        found.append(await _consumer(js, name, config))
    return Consumers(*found)


async def _consumer(
    js: JetStreamContext, name: str, config: api.ConsumerConfig
) -> api.ConsumerConfig:
    try:
        info = await js.consumer_info(subjects.ACTIONS, name)
    except NotFoundError:
        info = await js.add_consumer(subjects.ACTIONS, config)
    found: api.ConsumerConfig = info.config
    filters = set(found.filter_subjects or [found.filter_subject or ""])
    if filters != set(config.filter_subjects or ()):
        raise BrokerFailed(f"consumer {name} has the subjects {filters}")
    return found
