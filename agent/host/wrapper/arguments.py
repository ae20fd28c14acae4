"""runc's command line for ``create``, as far as it has to become one for ``restore``."""

from __future__ import annotations

from _collections_abc import Iterator, Sequence

# runc's own when it is not told another.
DEFAULT_ROOT = "/run/runc"

_GLOBAL_VALUES = ("root", "log", "log-format", "criu", "rootless")
_GLOBAL_FLAGS = ("debug", "systemd-cgroup", "help", "h", "version", "v")

_CREATE_VALUES = ("bundle", "b", "console-socket", "pidfd-socket", "pid-file", "preserve-fds")
_CREATE_FLAGS = ("no-pivot", "no-new-keyring", "help", "h")

# What `runc restore` has a word for as well.
_SHARED_VALUES = ("console-socket", "pid-file")

# A log of its own for the attempt: the engine takes what is in its log for the reason of a failure.
_LOG = ("log", "log-format")


class Unknown(Exception):
    """Not a command line that can be understood; runc itself is to judge it."""


class Create:
    """One call of `runc create`."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises Unknown."""
        self._globals, rest = _options(words, _GLOBAL_VALUES, _GLOBAL_FLAGS)
        if rest[:1] != ["create"]:
            raise Unknown
        self._options, identity = _options(rest[1:], _CREATE_VALUES, _CREATE_FLAGS)
        if len(identity) != 1 or _last(self._options, "help", "h") is not None:
            raise Unknown
        self.container = identity[0]
        # What runc refuses too, and would be the state directory of others.
        if self.container in ("", ".", "..") or "/" in self.container:
            raise Unknown
        self.root = _last(self._globals, "root") or DEFAULT_ROOT
        self.bundle = _last(self._options, "bundle", "b") or "."
        self.log = _last(self._globals, "log")
        self.logs_json = _last(self._globals, "log-format") == "json"
        self.pid_file = _last(self._options, "pid-file")

    @property
    def unrestorable(self) -> str | None:
        """What was asked for that `runc restore` cannot do, None when there is nothing."""
        if _last(self._options, "pidfd-socket") is not None:
            return "--pidfd-socket"
        if (_last(self._options, "preserve-fds") or "0") != "0":
            return "--preserve-fds"
        return None

    def globals(self) -> list[str]:
        """runc's global options, but for those of its log."""
        return list(_words((name, value) for name, value in self._globals if name not in _LOG))

    def restore(self, flags: Sequence[str]) -> list[str]:
        """The subcommand that brings the same container back, its id included."""
        kept = (each for each in self._options if each[0] in (*_SHARED_VALUES, "no-pivot"))
        words = ["restore", "--bundle", self.bundle, *_words(kept)]
        return [*words, *flags, self.container]


def _options(
    words: Sequence[str], values: Sequence[str], flags: Sequence[str]
) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Options as Go's flag package reads them: one dash or two, up to the first other word."""
    found: list[tuple[str, str | None]] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if name in flags:
            found.append((name, value if equals else None))
        elif name in values and (equals or rest):
            found.append((name, value if equals else rest.pop(0)))
        else:
            raise Unknown
    return found, rest


def _last(options: Sequence[tuple[str, str | None]], *names: str) -> str | None:
    """Of an option that is there twice the last one counts; "" for a flag without a value."""
    found = [value or "" for name, value in options if name in names]
    return found[-1] if found else None


def _words(options: Iterator[tuple[str, str | None]]) -> Iterator[str]:
    for name, value in options:
        yield f"--{name}" if value is None else f"--{name}={value}"
