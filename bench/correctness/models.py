"""What works on which family of models: `python -m bench.correctness.models` writes docs/models.md and models.json.

A tiny model of each family with random weights: `load` whether our loader fills it, `path` the layers that `auto` may
take on a card, `p1`, `p2`, `export_checked` what a whole job through the command line came to (left out with --quick).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.speed.measure import setting
from tests.families import FAMILIES, Family, build
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.load import load_base

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "jobs" / "tiny" / "model"
VOCABULARY = 2048  # of that tokenizer's model
PAGE = """# Families of models

A tiny model of each family that transformers {transformers} builds, with random weights, on {hardware} ({date}).
Written by `python -m bench.correctness.models`; the same rows are in [models.json](models.json).

- **load**: filled from its files by our own loader, one tensor at a time.
- **layers**: *written out*: `auto` may take `lean`, `checkpoint` and `offload`, each proved before the first step. *the
  library's*: transformers' own layers, kept (`autograd`) or recomputed (`recompute`).
- **P1**, **P2**: trained through the command line. **exports**: rows, merged model and adapter, loaded by transformers
  and PEFT alone, compute published weights plus what was trained.

| family | load | layers | P1 | P2 | exports | why not |
| --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One family. None: not tried."""

    family: str
    load: bool
    path: str  # written out, or the library's
    p1: bool | None = None
    p2: bool | None = None
    export_checked: bool | None = None
    why: str = ""


def save(family: Family, folder: Path) -> Path:
    """The tiny model as people have it: a folder with the tokenizer of jobs/tiny."""
    shutil.rmtree(folder, ignore_errors=True)
    build(family, vocab_size=VOCABULARY).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, folder / file)
    return folder


def row_of(family: Family, work: Path, *, quick: bool) -> Row:
    try:
        folder = save(family, work / "model")
        model, _ = load_base(str(folder), load="fp32", device="cpu")
    except Exception as error:  # a row says what it was, and the others are still wanted
        said = str(error).splitlines()[0] if str(error) else ""
        return Row(family=family.name, load=False, path="", why=f"{type(error).__name__}: {said}")
    used = use_layers(model, "lean")
    row = Row(family=family.name, load=True, path="written out" if used.path == "lean" else "the library's")
    return row if quick else trained(row, folder, work / "jobs")


def trained(row: Row, folder: Path, work: Path) -> Row:
    """The same row with what whole jobs came to."""
    shutil.rmtree(work, ignore_errors=True)
    seen = importlib.import_module("bench.correctness.exported").check(folder, work)
    table = {**asdict(row), "p1": seen.p1, "p2": seen.p2, "export_checked": seen.export_checked, "why": seen.why}
    return Row(**table)


def write(rows: Sequence[Row], docs: Path) -> None:
    now = setting()
    page = PAGE.format(
        transformers=now["versions"]["transformers"],
        hardware=now["hardware"],
        date=now["date"],
        rows="\n".join(map(line, rows)),
    )
    (docs / "models.md").write_text(page)
    (docs / "models.json").write_text(json.dumps({**now, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def line(row: Row) -> str:
    words: dict[Any, str] = {True: "yes", False: "no", None: ""}
    cells = [row.family, words[row.load], row.path, words[row.p1], words[row.p2], words[row.export_checked], row.why]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def chosen(names: Iterable[str]) -> list[Family]:
    return [FAMILIES[name] for name in names] or list(FAMILIES.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="some of the list in tests/families.py; all by default")
    parser.add_argument("--quick", action="store_true", help="only load and look at the layers")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    quick = options.quick or importlib.util.find_spec("bench.correctness.exported") is None
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for family in chosen(options.families):
            rows.append(row_of(family, Path(work), quick=quick))
            print(line(rows[-1]), flush=True)
    if not options.families:
        write(rows, options.docs)


if __name__ == "__main__":
    main()
