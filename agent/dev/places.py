"""Where everything is: one directory, and no path outside of it but the store's."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.errors import InvalidArgument
from agent.settings.checks import MAX_SOCKET_PATH


@dataclass(frozen=True, slots=True)
class Places:
    """Paths below ``directory``, which is absolute."""

    directory: Path

    @property
    def config(self) -> Path:
        """Settings of the daemon and the API."""
        return self.directory / "config.toml"

    @property
    def broker(self) -> Path:
        """The broker's configuration, streams, and the port it listens on."""
        return self.directory / "broker"

    @property
    def broker_token(self) -> Path:
        """What the broker asks for."""
        return self.directory / "broker-token"

    @property
    def daemon(self) -> Path:
        """The daemon's state."""
        return self.directory / "daemon"

    @property
    def socket(self) -> Path:
        """Where the daemon serves gRPC."""
        return self.directory / "agent.sock"

    @property
    def database(self) -> Path:
        """The API's."""
        return self.directory / "api.db"

    @property
    def checkpoints(self) -> Path:
        """The store, unless another one is given."""
        return self.directory / "checkpoints"

    def log(self, part: str) -> Path:
        """What a part says."""
        return self.directory / f"{part}.log"

    def make(self) -> None:
        """Make the directory, for its owner alone.

        Raises:
            InvalidArgument: it cannot be used, or others could put files of theirs into it.
        """
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            reason = f"{self.socket} is longer than the {MAX_SOCKET_PATH} bytes of a socket's path"
            raise InvalidArgument("--directory", reason)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.directory.stat()
            self.broker.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            reason = f"{self.directory}: {error.strerror or error}"
            raise InvalidArgument("--directory", reason) from error
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InvalidArgument("--directory", f"others may write to {self.directory}")


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whatever was there before."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
