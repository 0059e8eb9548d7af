"""Write the reference of job files, every key with its default and what is allowed, from the schema itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from runner.jobfile.wording import Schema, allowed, table_node
from wake2vec.contract.spec import JobTable


def reference() -> str:
    """Markdown: the keys above the first table, then one section for each table."""
    schema = JobTable.model_json_schema()
    plain = {key: node for key, node in schema["properties"].items() if table_node(node, schema) is None}
    parts = ["### Above the first table\n", *_rows(plain, schema.get("required", []), schema)]
    for node in schema["properties"].values():
        inner = table_node(node, schema)
        if inner is not None:
            head, _, rest = str(inner["description"]).partition(": ")
            parts += [f"\n### `{head}`\n", f"{rest[:1].upper()}{rest[1:]}\n"]
            parts += _rows(inner["properties"], inner.get("required", []), schema)
    return "\n".join(parts) + "\n"


def _rows(properties: dict[str, Any], required: list[str], schema: Schema) -> Iterator[str]:
    yield "| key | default | allowed | what it does |"
    yield "| --- | --- | --- | --- |"
    for key, node in properties.items():
        cells = (f"`{key}`", _default(key, node, required), allowed(node, schema), str(node.get("description", "")))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: str, node: Schema, required: list[str]) -> str:
    if key in required:
        return "**needed**"
    value = node.get("default")
    if value is None:
        return "none"
    return "the file's name" if key == "name" else f"`{json.dumps(value, ensure_ascii=False)}`"
