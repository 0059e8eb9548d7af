"""Do all ways through the layers train the same rows? Eight steps of P1 through the command line, on each way.

`python -m bench.correctness.layer_paths` writes bench/results/layer_paths.json: how far the rows are from those of the
library's own layers, by family and way, of the largest value.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import get_args

from safetensors.torch import load_file
from torch import Tensor

from bench.correctness.exported import JOB, TINY, run_command
from bench.correctness.models import save
from bench.speed.measure import setting
from tests.families import FAMILIES
from wake2vec.contract.plan import LayerPath

PATHS: tuple[LayerPath, ...] = get_args(LayerPath)
KINDS = ("llama", "smollm3", "gemma2", "granite", "gpt2", "qwen3")
RIGHT = 1e-5
OUT = Path(__file__).parents[1] / "results" / "layer_paths.json"


def rows_apart(family: str, work: Path) -> dict[str, float]:
    """Of each way, the largest difference from `autograd`, over the largest value of the rows."""
    base = save(FAMILIES[family], work / "model")
    for number, path in enumerate(PATHS):
        text = JOB.format(
            phase="p1", head=f'name = "{path}"', base=base, vocab=f'[vocab]\nlexicon = "{TINY / "lexicon.txt"}"',
            corpus=TINY / "corpus.txt", layers=path, load="fp32",
        )  # fmt: skip
        # what is measured may differ, what is trained does not: the same job twice would be refused
        for old, new in (
            ("steps = 4\nb", "steps = 8\nb"),
            ("windows = 2", f"windows = {2 + number}"),
            ("samples = 1", "samples = 0"),
        ):
            text = text.replace(old, new)
        (work / f"{path}.toml").write_text(text)
    for words in (("enqueue", *(str(work / f"{path}.toml") for path in PATHS)), ("start", "--until-empty")):
        run_command(work, *words).check_returncode()
    runs = work / "home" / "runs"
    found = {path: load_file(runs / path / "final" / "embed_tokens.safetensors") for path in PATHS}
    right = found["autograd"]
    return {path: max(_apart(rows[name], right[name]) for name in right) for path, rows in found.items()}


def _apart(found: Tensor, right: Tensor) -> float:
    return float((found - right).abs().max() / right.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=KINDS)
    table = {}
    for family in parser.parse_args().families:
        with tempfile.TemporaryDirectory() as work:
            table[family] = rows_apart(family, Path(work))
        print(family, *(f"{path} {apart:.1e}" for path, apart in table[family].items()), flush=True)
    OUT.write_text(json.dumps({**setting(), "rows_apart": table}, indent=1) + "\n")
    worst = max(apart for row in table.values() for apart in row.values())
    sys.exit(0 if worst <= RIGHT else f"{worst:.1e} apart")


if __name__ == "__main__":
    main()
