"""Does the API serve what proto/actions-openapi.json promises? Offline; `make check` runs it.

It may serve more: paths, optional parameters, refusals. It may not lack or demand anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CONTRACT: Final = Path(__file__).resolve().parent.parent / "proto" / "actions-openapi.json"

Json = Mapping[str, Any]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# What only people read.
WORDS: Final = {"title", "description", "example", "examples"}
STRUCTURE: Final = {"$ref", "type", "anyOf", "oneOf"}
# Values that say no more than the keyword's absence.
NOTHING: Final[dict[str, list[Any]]] = {
    "default": [None],
    "required": [[]],
    "items": [{}],
    "additionalProperties": [True, {}],
}
# Keywords that mean something for these types only.
OF_TYPES: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("minimum", "maximum"), ("integer", "number")),
    **dict.fromkeys(("properties", "required", "additionalProperties"), ("object",)),
    "format": ("string", "integer", "number"),
    "items": ("array",),
}
# Limits that say no more than the format does.
RANGES: Final = {f"int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (32, 64)}
# The type of what has none.
ANYTHING: Final = "anything"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schema says of values of one type; ``name`` is the component it was taken from."""

    name: str
    keywords: Json


@dataclass(frozen=True, slots=True)
class Pair:
    """The contract's document and the server's, for following references."""

    contract: Json
    server: Json

    def documents(self) -> Iterator[str]:
        """Everything in which the server differs, one line each."""
        theirs = dict(_operations(self.server))
        for label, ours in _operations(self.contract):
            if label in theirs:
                yield from self._operation(label, ours, theirs[label])
            else:
                yield f"{label}: missing"
        components = self.server.get("components", {}).get("schemas", {})
        for name, schema in self.contract["components"]["schemas"].items():
            if name in components:
                yield from self.schemas(name, schema, components[name])
            else:
                yield f"{name}: missing"

    def _operation(self, label: str, ours: Json, theirs: Json) -> Iterator[str]:
        yield from _value(f"{label}:", ours, theirs, "operationId")
        yield from self._security(label, ours, theirs)
        yield from self._parameters(label, ours, theirs)
        body = _follow(self.contract, ours.get("requestBody", {}))
        given = _follow(self.server, theirs.get("requestBody", {}))
        yield from _need(f"{label} body", body, given)
        yield from self._content(f"{label} body", body, given)
        for status, response in ours["responses"].items():
            if status in theirs["responses"]:
                ok = _follow(self.contract, response)
                found = _follow(self.server, theirs["responses"][status])
                yield from self._content(f"{label} {status}", ok, found)
            else:
                yield f"{label} {status}: missing"

    def _security(self, label: str, ours: Json, theirs: Json) -> Iterator[str]:
        wanted = _schemes(self.contract, ours)
        accepted = _schemes(self.server, theirs)
        for scheme in sorted(wanted - accepted):
            yield f"{label}: security {scheme} is missing"
        if "none" in accepted - wanted:
            yield f"{label}: can be called without security"

    def _parameters(self, label: str, ours: Json, theirs: Json) -> Iterator[str]:
        wanted = _parameters(self.contract, ours)
        found = _parameters(self.server, theirs)
        for key, parameter in wanted.items():
            if key not in found:
                yield f"{label} {key}: missing"
                continue
            yield from _need(f"{label} {key}", parameter, found[key])
            schema, other = parameter.get("schema", {}), found[key].get("schema", {})
            yield from self.schemas(f"{label} {key}", schema, other)
        for key in sorted(found.keys() - wanted.keys()):
            if found[key].get("required", False):
                yield f"{label} {key}: required, and not in the contract"

    def _content(self, where: str, ours: Json, theirs: Json) -> Iterator[str]:
        wanted, found = ours.get("content", {}), theirs.get("content", {})
        for media, content in wanted.items():
            if media not in found:
                yield f"{where}: {media} is missing"
                continue
            schema, other = content.get("schema", {}), found[media].get("schema", {})
            yield from self.schemas(f"{where} {media}", schema, other)
        for media in sorted(found.keys() - wanted.keys()):
            yield f"{where}: {media} is not in the contract"

    def schemas(self, where: str, ours: Json | bool, theirs: Json | bool) -> Iterator[str]:
        """Where two schemas differ; the contract's comes first."""
        mine, other = _shapes(self.contract, ours), _shapes(self.server, theirs)
        if mine.keys() != other.keys():
            said = " or ".join(sorted(other))
            yield f"{where}: type is {said}, in the contract {' or '.join(sorted(mine))}"
        for kind in sorted(mine.keys() & other.keys()):
            # Components of one name are compared once, where they stand.
            if not mine[kind].name or mine[kind].name != other[kind].name:
                yield from self._shapes(where, mine[kind].keywords, other[kind].keywords)

    def _shapes(self, where: str, ours: Json, theirs: Json) -> Iterator[str]:
        for word in sorted(ours.keys() | theirs.keys()):
            if word == "properties":
                yield from self._properties(where, ours.get(word, {}), theirs.get(word, {}))
            elif word in ("required", "enum"):
                yield from _members(f"{where}: {word}", ours.get(word, ()), theirs.get(word, ()))
            elif word in ("items", "additionalProperties") and word in ours and word in theirs:
                yield from self.schemas(f"{where} {word}", ours[word], theirs[word])
            else:
                yield from _value(f"{where}:", ours, theirs, word)

    def _properties(self, where: str, ours: Json, theirs: Json) -> Iterator[str]:
        yield from _members(f"{where}: property", ours, theirs)
        for name in ours:
            if name in theirs:
                yield from self.schemas(f"{where}.{name}", ours[name], theirs[name])


def differences(contract: Json, server: Json) -> list[str]:
    """What the document ``server`` lacks of the contract, or demands beyond it; a line each."""
    return list(dict.fromkeys(Pair(contract, server).documents()))


def _operations(document: Json) -> Iterator[tuple[str, Json]]:
    """Every operation as "GET /path", with the parameters that its path has for all."""
    for path, item in document.get("paths", {}).items():
        for method in METHODS:
            if method in item:
                shared = [*item.get("parameters", ()), *item[method].get("parameters", ())]
                yield f"{method.upper()} {path}", {**item[method], "parameters": shared}


def _schemes(document: Json, operation: Json) -> set[str]:
    """What a caller may choose between; names do not count."""
    known = document.get("components", {}).get("securitySchemes", {})
    choices = set()
    for choice in operation.get("security", document.get("security", [])) or [{}]:
        each = (_follow(document, known.get(name, {})) for name in choice)
        words = (" ".join(str(one.get(word, "")) for word in ("type", "scheme")) for one in each)
        choices.add(" and ".join(sorted(words)).strip() or "none")
    return choices


def _parameters(document: Json, operation: Json) -> dict[str, Json]:
    found = [_follow(document, each) for each in operation["parameters"]]
    return {f"{each['in']} {each['name']}": each for each in found}


def _follow(document: Json, node: Json) -> Json:
    """The node, or what it refers to."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = {**target, **{word: value for word, value in node.items() if word != "$ref"}}
    return node


def _shapes(document: Json, schema: Json | bool) -> dict[str, Shape]:
    """What it says, by type. Of those who allow anything there is nothing more to say."""
    plain = {} if isinstance(schema, bool) else _plain(schema)
    name = plain["$ref"] if plain.keys() == {"$ref"} else ""
    plain = _plain(_follow(document, plain))
    found: dict[str, Shape] = {}
    for word in ("anyOf", "oneOf"):
        if word in plain:
            for branch in plain.pop(word):
                _join(found, _shapes(document, {**plain, **branch}))
            break
    else:
        for kind in _types(plain):
            _join(found, {kind: Shape(name, _about(kind, plain))})
    free = found.get(ANYTHING)
    return {ANYTHING: free} if free is not None and not free.keywords else found


def _plain(schema: Json) -> dict[str, Any]:
    """The schema without what makes no difference."""
    said = {
        word: value
        for word, value in schema.items()
        if word not in WORDS and value not in NOTHING.get(word, [])
    }
    if "const" in said:
        said["enum"] = [said.pop("const")]
    # How a single schema is written that something is to be said of.
    if len(said.get("allOf", ())) == 1:
        said |= said.pop("allOf")[0]
    limits = (said.get("minimum"), said.get("maximum"))
    if limits == RANGES.get(said.get("format", "")):
        del said["minimum"], said["maximum"]
    return said


def _join(found: dict[str, Shape], more: Mapping[str, Shape]) -> None:
    for kind, shape in more.items():
        known = found.setdefault(kind, shape)
        if known.keywords.keys() == shape.keywords.keys() == {"enum"}:
            both = known.keywords["enum"] | shape.keywords["enum"]
            found[kind] = shape if known is shape else Shape("", {"enum": both})
        elif known.keywords != shape.keywords:
            found[f"another {kind}"] = shape


def _types(plain: Json) -> list[str]:
    given = plain.get("type", [])
    inferred = sorted({_type(value) for value in plain.get("enum", ())}) or [ANYTHING]
    return [given] if isinstance(given, str) else given or inferred


def _type(value: object) -> str:
    if value is None:
        return "null"
    known = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array"}
    return known.get(type(value), "object")


def _about(kind: str, plain: Json) -> Json:
    """What it says of values of one type."""
    said = {
        word: value
        for word, value in plain.items()
        if word not in STRUCTURE and kind in (ANYTHING, *OF_TYPES.get(word, (kind,)))
    }
    if "enum" in said:
        said["enum"] = {json.dumps(each) for each in said["enum"] if _type(each) == kind}
    return {} if kind == "null" else said


def _value(where: str, ours: Json, theirs: Json, word: str) -> Iterator[str]:
    if word not in ours and word in theirs:
        yield f"{where} {word} {_short(theirs[word])} is not in the contract"
    elif word in ours and word not in theirs:
        yield f"{where} {word} {_short(ours[word])} is missing"
    elif ours.get(word) != theirs.get(word):
        said = _short(theirs[word])
        yield f"{where} {word} is {said}, in the contract {_short(ours[word])}"


def _members(where: str, ours: Iterable[str], theirs: Iterable[str]) -> Iterator[str]:
    both = {*ours}, {*theirs}
    yield from (f"{where} {name} is missing" for name in sorted(both[0] - both[1]))
    yield from (f"{where} {name} is not in the contract" for name in sorted(both[1] - both[0]))


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=sorted)


def _need(where: str, ours: Json, theirs: Json) -> Iterator[str]:
    need, needed = bool(ours.get("required")), bool(theirs.get("required"))
    yield from _value(f"{where}:", {"required": need}, {"required": needed}, "required")


def main() -> None:
    """Compare, and fail where the API does not keep the contract."""
    # Here, because the comparison itself needs no server.
    from agent.api.app import schema

    found = differences(json.loads(CONTRACT.read_text()), schema())
    for line in found:
        print(line, file=sys.stderr)
    if found:
        sys.exit(f"contract: agent/api does not keep {CONTRACT.name}")


if __name__ == "__main__":
    main()
