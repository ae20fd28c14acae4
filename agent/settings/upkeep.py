"""What the agent does to pods without being asked: heartbeats, and checkpoints when a node goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from agent.settings.checks import AbsolutePath, HttpUrl, refuse
from agent.settings.table import Table

# A DNS name: what a Node object may be called.
NodeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Percent = Annotated[float, Field(ge=0, le=100)]


class Heartbeat(Table):
    """Periodic checkpoints of pods that are annotated ``checkpoint-agent/heartbeat``."""

    # Nothing happens to a pod that does not ask for it.
    enabled: bool = True
    # The shortest interval that a pod may ask for. Each time all of it stands still for a moment.
    minimum_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = 10.0
    # By what part of itself an interval may be longer or shorter: pods that were made together do
    # not write to their store together.
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    # Checkpoints of each pod, unless it is annotated `checkpoint-agent/keep`. Two: while one is
    # read by another node, the next one does not delete it.
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    # Percent of the last ten seconds in which some task waited (PSI, some avg10); 100 never holds
    # anything up. A node that is used well has tasks waiting for its processors most of the time;
    # for memory a fifth of the time is near to thrashing.
    cpu_pressure: Percent = 90.0
    memory_pressure: Percent = 20.0
    io_pressure: Percent = 60.0
    # Where the kernel has no PSI: tasks that want to run for each core, and percent of all memory
    # that could still be had.
    load_per_core: Annotated[float, Field(gt=0, le=1000)] = 4.0
    memory_available: Percent = 5.0
    # Percent of the file system of a store that is a directory.
    store_free: Percent = 10.0


class Drain(Table):
    """Checkpoints of pods that opted in when the node is about to go."""

    # It begins when this file appears; the file may say how long there is (`90s`).
    file: AbsolutePath = Path("/run/checkpoint-agent/drain")
    # Whether being stopped means that the node goes. An update of the agent stops it, too.
    on_stop: bool = False
    # Whether a cordon or a taint of this node's object is a notice, where there is a [cluster].
    cordon: bool = True
    # What that object is called: kubelet takes the host's name unless it is told another one.
    node: NodeName = Field(default_factory=lambda: os.uname().nodename.lower())
    # Whose metadata service announces that a spot machine is taken back.
    metadata: Literal["", "aws", "gcp", "azure"] = ""
    # Instead of the cloud's own address.
    metadata_url: HttpUrl = ""
    # When nobody says how long there is. A machine that is taken back has 30 s on most clouds; of
    # a unit's TimeoutStopSec (120) this and stop_seconds are a part.
    deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] = 25.0

    @model_validator(mode="after")
    def _url_of_something(self) -> Drain:
        if self.metadata_url and not self.metadata:
            raise refuse("metadata_url", "says where metadata is, but not whose: give metadata too")
        return self
