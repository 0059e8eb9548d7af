"""Say in words what a JSON schema allows, what stands in its place, and what would mend it."""

from __future__ import annotations

import datetime
import difflib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from wake2vec.contract.tables import NAME_PATTERN

Schema = Mapping[str, Any]
Path = tuple[str, ...]

PATTERNS = {NAME_PATTERN: 'letters, digits, ".", "_" and "-", at most 80, starting with a letter or digit'}
TOML_KINDS: dict[type, str] = {
    list: "a list",
    dict: "a table",
    datetime.datetime: "a date",
    datetime.date: "a date",
    datetime.time: "a time",
}


def sample(node: Schema, schema: Schema) -> Any:
    """Some value that `node` allows."""
    node = resolve(node, schema)
    if "anyOf" in node:
        return sample(node["anyOf"][0], schema)
    if "enum" in node:
        return node["enum"][0]
    if "const" in node:
        return node["const"]
    kind = node.get("type")
    if kind == "object":
        return {key: sample(node["properties"][key], schema) for key in node.get("required", ())}
    if kind in ("integer", "number"):
        return node.get("minimum", 1 if kind == "integer" else min(0.5, node.get("maximum", 0.5)))
    return {"string": "x", "boolean": False, "array": ["x"]}.get(str(kind))


def allowed(node: Schema, schema: Schema) -> str:
    """What may stand at a place, in words: `a number above 0, at most 10`."""
    node = resolve(node, schema)
    if "anyOf" in node:
        parts = [allowed(part, schema) for part in node["anyOf"] if part.get("type") != "null"]
        *first, last = parts
        return f"{', '.join(part.replace(' or ', ', ') for part in first)} or {last}" if first else last
    if "enum" in node:
        *first, last = (json.dumps(value) for value in node["enum"])
        return f"{', '.join(first)} or {last}" if first else last
    if "const" in node:
        return json.dumps(node["const"])
    kind = node.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(node)
    if kind == "string":
        return PATTERNS.get(node.get("pattern", ""), "a text")
    if kind == "array":
        return f"a list of {allowed(node['items'], schema).removeprefix('a ')}s"
    return {"boolean": "true or false", "object": "a table"}.get(str(kind), "another value")


def _bounds(node: Schema) -> str:
    above, least = node.get("exclusiveMinimum"), node.get("minimum")
    below, most = node.get("exclusiveMaximum"), node.get("maximum")
    parts = [
        f" above {above:g}" if above is not None else "",
        f" of at least {least:g}" if least is not None else "",
        f" below {below:g}" if below is not None else "",
        f" at most {most:g}" if most is not None else "",
    ]
    return ",".join(part for part in parts if part)


def got(value: Any) -> str:
    """A value as a person wrote it, shortened."""
    if isinstance(value, str):
        return f"the text {json.dumps(value if len(value) <= 60 else value[:57] + '...', ensure_ascii=False)}"
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return repr(value)
    return TOML_KINDS.get(type(value), "another value")


def remedy(node: Schema, value: Any, schema: Schema) -> str:
    kinds = {part.get("type") for part in members(node, schema)}
    if kinds == {"array"} and not isinstance(value, list | dict):
        return "; put it in [ ]"
    if isinstance(value, str):
        if kinds & {"integer", "number"} and _reads_as_number(value):
            return "; remove the quotes"
        if "boolean" in kinds and value.lower() in ("true", "false"):
            return "; remove the quotes"
        choices = [
            choice
            for part in members(node, schema)
            for choice in (*part.get("enum", ()), part.get("const"))
            if isinstance(choice, str) and choice
        ]
        if nearest := difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.6):
            return f"; did you mean {json.dumps(nearest[0])}?"
    elif isinstance(value, int | float) and kinds == {"string"}:
        return "; put it in quotes"
    elif isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return f"; write {int(value)}"
    return ""


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace("_", "")))
    except ValueError:
        return False


def members(node: Schema, schema: Schema) -> list[Schema]:
    node = resolve(node, schema)
    parts = [part for inner in node.get("anyOf", ()) for part in members(inner, schema)] or [node]
    return [part for part in parts if part.get("type") != "null"]


def resolve(node: Schema, schema: Schema) -> Schema:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def table_node(node: Schema, schema: Schema) -> Schema | None:
    return next((part for part in members(node, schema) if part.get("type") == "object"), None)


def tables(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for name, node in schema.get("properties", {}).items():
        if (inner := table_node(node, schema)) is not None:
            yield name, inner


def node_at(schema: Schema, place: Path) -> Schema:
    node: Schema = schema
    for part in place:
        table = table_node(node, schema)
        if table is not None and part in table.get("properties", {}):
            node = table["properties"][part]
        elif lists := [member for member in members(node, schema) if member.get("type") == "array"]:
            node = lists[0]["items"]
        else:
            return {}
    return node
