"""Write the tables of the docs from bench/results/*.json: `python -m bench.publish.tables`.

Between `<!-- p1-qwen14b -->` and `<!-- end -->` stands whatever the file of that name holds, and with
`<!-- questions:chat -->` a part of it.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("performance", "quality", "questions", "p3", "scale")
RESULTS = ROOT / "bench" / "results"
PLACE = re.compile(r"<!-- ([\w-]+)(?::([\w-]+))? -->\n.*?<!-- end -->", re.DOTALL)


def main() -> None:
    for name in PAGES:
        page = ROOT / "docs" / f"{name}.md"
        page.write_text(filled(page.read_text()))


def filled(page: str) -> str:
    """The page with every table written anew."""

    def written(place: re.Match[str]) -> str:
        return f"{place[0].partition(chr(10))[0]}\n{table(place[1], place[2] or '')}<!-- end -->"

    return PLACE.sub(written, page)


def table(name: str, part: str = "") -> str:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    if "study" in result:
        folder, _, name = result["study"].rpartition(".")
        rows = importlib.import_module(f"bench.{folder or 'studies'}.{name}").table(result, part)
        return "\n".join([*as_markdown(rows), "", source(result)]) + "\n"
    rows = [exactness(row) for row in result["rows"]] if name == "exactness" else [speed(row) for row in result["rows"]]
    return "\n".join([source(result), "", *as_markdown(rows)]) + "\n"


def source(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    if "setting" in result:
        setting = ", ".join(f"{name} {value}" for name, value in result["setting"].items())
        return f"{setting}; {result['hardware']}; {versions}; {result['date']}."
    cap = f", capped to {result['cap_gib']} GiB" if result.get("cap_gib") else ""
    note = f" {result['note'].capitalize()}." if result.get("note") else ""
    return f"{result.get('model', 'Random weights')} on {result['hardware']}{cap}; {versions}; {result['date']}.{note}"


def speed(row: dict[str, Any]) -> dict[str, str]:
    figure = {
        "contender": row["contender"],
        "layers": row["layers"],
        "held": row["details"].replace("embed ", "embedding on ").replace("head as-is", "head as published"),
        "micro-batch": f"{row['micro_batch']} x {row['seq_len']}",
    }
    if row["oom"]:
        return figure | {"tokens/s": "out of memory", "s/step": "", "peak GiB": "", "reserved": "", "of floor": ""}
    return figure | {
        "tokens/s": f"{row['tokens_per_s']:,.0f}",
        "s/step": f"{row['s_per_step']:.2f}",
        "peak GiB": f"{row['peak_allocated_gib']:.2f}" if row["peak_allocated_gib"] else "",
        "reserved": f"{row['peak_reserved_gib']:.2f}" if row["peak_reserved_gib"] else "",
        "of floor": f"{row['floor_fraction']:.0%}" if row["floor_fraction"] else "",
    }


def exactness(row: dict[str, Any]) -> dict[str, str]:
    return {
        "dtype": row["dtype"],
        "layers": row["layers"],
        "input rows": f"{row['input_rows']:.1e}",
        "output rows": f"{row['output_rows']:.1e}",
        "base rows moved by": f"{row['base_drift']:g}",
        "same bits twice": "yes" if row["repeats_bits"] else "no",
    }


def as_markdown(rows: list[dict[str, str]]) -> list[str]:
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return lines + [f"| {' | '.join(row.values())} |" for row in rows]


if __name__ == "__main__":
    main()
