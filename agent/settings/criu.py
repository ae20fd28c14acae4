"""What CRIU is told: the table [checkpoint.criu_opts]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from agent.settings.checks import refuse
from agent.settings.table import Table
from agent.tcp import FIELDS, Policy, chosen


class CriuOpts(Table):
    """What CRIU is told unless a request says otherwise; the fields of the manifest's options."""

    # Instead of the three below that begin like it. Where nothing is said of any of them,
    # containers and processes with open connections are refused, as CRIU does; pods get what makes
    # them checkpointable at any time, see agent/tcp.py.
    tcp: Policy | None = None
    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    link_remap: bool = False
    manage_cgroups_mode: Literal["soft", "full", "strict", "ignore"] = "soft"
    tcp_skip_in_flight: bool = False
    # Bytes; CRIU's own limit when not given.
    ghost_limit: Annotated[int, Field(gt=0, lt=1 << 32)] | None = None
    log_level: Annotated[int, Field(ge=0, le=4)] = 4

    @property
    def connections(self) -> dict[str, bool]:
        """Of the manifest's options for TCP those that something is said of."""
        given = {name: getattr(self, name) for name in FIELDS if name in self.model_fields_set}
        return chosen(self.tcp, given)

    @model_validator(mode="after")
    def _one_policy(self) -> CriuOpts:
        try:
            _ = self.connections
        except ValueError as error:
            raise refuse("tcp", str(error)) from None
        return self
