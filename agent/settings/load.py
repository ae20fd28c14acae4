"""Reads the configuration file and the environment, and says where a wrong value came from.

A key of a table is overridden by ``CHECKPOINT_AGENT_<TABLE>__<KEY>``, one outside of tables by
``CHECKPOINT_AGENT_<KEY>``. Values of text and paths are taken as they are, all others are read as
TOML values (``8``, ``true``, ``["/run/runc"]``). "" sets a key of a table to "", and is no value
elsewhere.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from agent.errors import InvalidArgument
from agent.settings.model import Settings

DEFAULT_CONFIG = Path("/etc/checkpoint-agent/config.toml")
CONFIG_VARIABLE = "CHECKPOINT_AGENT_CONFIG"
_PREFIX = "CHECKPOINT_AGENT_"

_Location = tuple[str, ...]
_Table = dict[str, Any]

# Names that the command line knows too.
_PLAIN = {"CHECKPOINT_AGENT_STORE": ("storage", "store")}

# Values that the environment may bring and the file may not.
_SECRETS: tuple[_Location, ...] = (
    ("nats", "password"),
    ("nats", "token"),
    ("api", "database_password"),
)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The effective settings.

    Args:
        path: of the file; None for the one that the environment names, else the default one, which
            need not exist.

    Raises:
        InvalidArgument: naming file or variable, table and key.
    """
    file, given = _read(path, environ)
    _refuse_secrets(given, file)
    variables = _overrides(environ)
    for where, (variable, value) in variables.items():
        _set(given, where, value, file, variable)
    try:
        # Through JSON: strict about types, but an array is a tuple there and a string a path.
        return Settings.model_validate_json(json.dumps(given, default=str), strict=True)
    except ValidationError as error:
        raise _named(error, file, variables) from None


def _read(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, _Table]:
    chosen = path or (Path(named) if (named := environ.get(CONFIG_VARIABLE)) else None)
    file = chosen or DEFAULT_CONFIG
    try:
        return file, tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if chosen is None:
            return file, {}
        raise InvalidArgument(str(file), "no such file") from None
    except OSError as error:
        raise InvalidArgument(str(file), error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(str(file), f"not TOML: {error}") from error


def _refuse_secrets(given: _Table, file: Path) -> None:
    for where in _SECRETS:
        if _get(given, where) is not None:
            reason = f"a secret; set {where[-1]}_file, or {_variable(where)} in the environment"
            raise InvalidArgument(_in_file(file, where), reason)


def _overrides(environ: Mapping[str, str]) -> dict[_Location, tuple[str, object]]:
    """Values from the environment by where they belong, each with its variable's name."""
    found: dict[_Location, tuple[str, object]] = {}
    for variable, text in sorted(environ.items()):
        where = _where(variable)
        if where is not None and (text or "__" in variable):
            found[where] = variable, _value(text, _annotation(where, variable))
    return found


def _where(variable: str) -> _Location | None:
    """Where a variable's value belongs, None when it is none of ours.

    Kubernetes sets CHECKPOINT_AGENT_PORT and the like for a service of that name: without two
    underscores, what is not known is not meant for us.
    """
    if variable in _PLAIN:
        return _PLAIN[variable]
    if not variable.startswith(_PREFIX):
        return None
    where = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
    plain = where[0] in Settings.model_fields and not _is_table(_field(Settings, where[0]))
    return where if len(where) > 1 or plain else None


def _variable(where: _Location) -> str:
    return _PREFIX + "__".join(where).upper()


def _annotation(where: _Location, variable: str) -> object:
    current: object = Settings
    for key in where:
        current = _field(current, key) if _is_table(current) else None
        if current is None:
            raise InvalidArgument(variable, f"there is no setting {_dotted(where)}")
    return current


def _field(model: object, key: str) -> object:
    fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
    return fields[key].annotation if key in fields else None


def _is_table(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _value(text: str, annotation: object) -> object:
    if _is_text(annotation):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # validation says what it should have been


def _is_text(annotation: object) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_is_text, get_args(annotation)))
    return annotation in (str, Path, SecretStr) or get_origin(annotation) is Literal


def _get(tables: _Table, where: _Location) -> object:
    found: object = tables
    for key in where:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _set(tables: _Table, where: _Location, value: object, file: Path, variable: str) -> None:
    table = tables
    for depth, key in enumerate(where[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            reason = f"must be a table; {variable} sets a key of it"
            raise InvalidArgument(_in_file(file, where[:depth]), reason)
    table[where[-1]] = value


def _named(
    error: ValidationError, file: Path, variables: Mapping[_Location, tuple[str, object]]
) -> InvalidArgument:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    # Numbers are places in arrays.
    where: _Location = tuple(str(part) for part in first["loc"] if not isinstance(part, int))
    if key := first.get("ctx", {}).get("key"):
        where = (*where, str(key))
    argument = variables[where][0] if where in variables else _in_file(file, where)
    if first["type"] == "extra_forbidden":
        return InvalidArgument(argument, "unknown key")
    return InvalidArgument(argument, _lower(first["msg"]))


def _lower(message: str) -> str:
    """pydantic begins with a capital letter, our sentences go on after a colon."""
    return message[:1].lower() + message[1:]


def _in_file(file: Path, where: _Location) -> str:
    table = ".".join(where[:-1])
    return f"{file}: [{table}] {where[-1]}" if table else f"{file}: {_dotted(where)}"


def _dotted(where: _Location) -> str:
    return ".".join(where)
