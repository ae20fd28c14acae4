"""Root of the tree, and what goes before everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class AgentError(Exception):
    """Root of the tree. Subclasses are dataclasses whose fields fill ``template``."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "internal"
    template: ClassVar[str] = "unexpected error"
    state: ClassVar[str] = ""
    hint: ClassVar[str] = ""

    def __str__(self) -> str:
        return self.template.format(**vars(self))

    def fields(self) -> dict[str, object]:
        """The error's own fields, for machines."""
        return dict(vars(self))


@dataclass(eq=False)
class InvalidArgument(AgentError):
    """A value from outside (an option, a path, a URL) that cannot be used."""

    exit_code: ClassVar[int] = 2
    code: ClassVar[str] = "invalid_argument"
    template: ClassVar[str] = "{argument}: {reason}"
    state: ClassVar[str] = "nothing was touched"

    argument: str
    reason: str


@dataclass(eq=False)
class MissingTool(AgentError):
    """A program or library that the agent stands on is not there, or too old."""

    exit_code: ClassVar[int] = 3
    code: ClassVar[str] = "missing_tool"
    template: ClassVar[str] = "{tool}: {reason}"
    state: ClassVar[str] = "nothing was touched"
    hint: ClassVar[str] = "run `make setup`, then `checkpoint-agent doctor`"

    tool: str
    reason: str


@dataclass(eq=False)
class Interrupted(AgentError):
    """A signal ended the operation; it was rolled back."""

    code: ClassVar[str] = "interrupted"
    template: ClassVar[str] = "interrupted by {signal_name}"
    state: ClassVar[str] = "rolled back: the target runs as before, nothing was stored"

    signal_name: str
    signal_number: int


@dataclass(eq=False)
class AlreadyExists(AgentError):
    """Something of that name is there already; nothing is ever overwritten."""

    exit_code: ClassVar[int] = 14
    code: ClassVar[str] = "already_exists"
    template: ClassVar[str] = "{what} already exists: {name}"
    state: ClassVar[str] = "it was left as it is"

    what: str
    name: str
