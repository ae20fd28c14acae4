"""The Actions API as its users meet it: a process on a port, with a database and a broker."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from agent.api.database import open_database, tokens
from agent.settings import load
from bench.reports import PATIENCE, wait_until
from tests.cli_process import CLI, environment
from tests.daemons import Tables
from tests.http import Answer, ask

T = TypeVar("T")


@dataclass
class Api:
    """One instance's files, and its process while it runs.

    ``tables`` go over the configuration that keeps it inside ``directory``.
    """

    directory: Path
    tables: Tables = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    address: str = "127.0.0.1:0"
    token: str = ""

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.directory / "api.toml"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory / "api.log"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address}"

    def start(self) -> None:
        """Start it and wait until it listens; the second time on the same port."""
        self.write_config()
        began = len(self.lines("ready"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # A test run that is killed takes it with it.
                ["setpriv", "--pdeathsig", "KILL", *CLI, "api", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(dict(self.env)),
            )
        wait_until(lambda: self._listens(began), "the API listening")
        self.address = str(self.lines("ready")[-1]["address"])

    def wait_ready(self) -> None:
        """Wait until it has a broker and a database."""
        wait_until(lambda: self.get("/readyz").status == 200, "the API being ready")

    def write_config(self) -> None:
        """Write its settings anew."""
        tables: Tables = {
            "api": {
                "address": self.address,
                "database": f"sqlite:///{self.directory}/api.db",
                "requests_per_second": 10_000.0,
            },
            "log": {"level": "debug", "format": "json"},
        }
        for name, keys in self.tables.items():
            tables.setdefault(name, {}).update(keys)
        lines: list[str] = []
        for name, keys in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        self.config.write_text("\n".join(lines))

    def make_token(self, name: str = "tests", *scopes: str) -> str:
        """A token of its own; of all scopes when none are given.

        Behind its back: the command takes half a second.
        """

        async def made(session: AsyncSession) -> str:
            return await tokens.create(session, name, scopes or tokens.SCOPES)

        return in_database(self, made)

    def get(self, path: str, token: str | None = None) -> Answer:
        """GET."""
        return ask("GET", self.url + path, token=self.token if token is None else token)

    def post(
        self, path: str, body: object, token: str | None = None, key: str | None = None
    ) -> Answer:
        """POST of JSON, with an Idempotency-Key where one is given."""
        headers = {"Idempotency-Key": key} if key is not None else {}
        token = self.token if token is None else token
        return ask("POST", self.url + path, json=body, token=token, headers=headers)

    def state_of(self, action_id: str) -> str:
        """An action's status."""
        return str(self.get(f"/v2/checkpoint/status/{action_id}").json()["status"])

    def wait_state(self, action_id: str, *states: str) -> dict[str, Any]:
        """Wait until an action is in one of these states; all of it then."""
        wait_until(lambda: self.state_of(action_id) in states, f"{action_id} being {states}")
        return dict(self.get(f"/v2/actions/{action_id}").json())

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it has said under this name."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            with suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == event:
                    found.append(said)
        return found

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _listens(self, began: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return len(self.lines("ready")) > began


def in_database(api: Api, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Do something with an API's database, in which there are its tables."""

    async def doing() -> T:
        database = open_database(load(api.config, api.env).api)
        try:
            async with database.write() as session:
                return await work(session)
        finally:
            await database.close()

    # Also for those who have a loop of their own.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, doing()).result()


@contextmanager
def api_in(
    directory: Path, broker: str, tables: Tables | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Api]:
    """An API that listens, with a token of all scopes; it does not outlive the block.

    Args:
        directory: an existing one.
        broker: its URL.
        tables: settings of its own.
    """
    given: Tables = {"nats": {"url": broker}}
    for name, keys in (tables or {}).items():
        given.setdefault(name, {}).update(keys)
    api = Api(directory, given, env or {})
    try:
        api.start()
        api.token = api.make_token()
        yield api
    finally:
        api.kill()


def postgres_settings(url: str, password: str) -> tuple[Tables, dict[str, str]]:
    """Settings and environment for a database on a server of the tests'."""
    return {"api": {"database": url}}, {"CHECKPOINT_AGENT_API__DATABASE_PASSWORD": password}


def is_action_id(text: str) -> bool:
    """Whether it is a bare UUID."""
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None
