"""P3, rows and LoRA under a structure: tokens per second and peak memory of ours and of the way it was done by hand.

`python -m bench.speed.p3 --model mistral7b --cap-gib 14.56` on a GPU; without arguments the same code on a tiny shape.
The table also holds the seconds that the auxiliary part takes once a step.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Literal

from bench.speed.p1 import Cell, parser
from wake2vec.contract.plan import LayerPath, Plan

if TYPE_CHECKING:
    from bench.speed.measure import Contender
    from bench.speed.sweep import Setup
    from wake2vec.model.new_rows import InstalledRows
    from wake2vec.structure.auxiliary import Auxiliary

DROPOUT = 0.1
TOKENS, SEQ_LEN = 16 * 512, 512  # of a step, as it was by hand
PAIRS, GROUPS, DEVICES, MEMBERS = 1_400, 60, 5, 300  # of the size that the files of the first runs have
REPEATS = 20  # of the auxiliary part alone


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(tokens=TOKENS)
    chosen = options.parse_args()

    from bench.speed.sweep import begin

    setup = begin(chosen, "P3", dropout=DROPOUT, rank=8)
    _ours(setup, chosen)
    if chosen.peers:
        _by_hand(setup, chosen)


def cells(few: bool) -> list[Cell]:
    """The fastest path that fits, by micro-batch, then those that leave more room."""
    if few:
        return [Cell(micro_batch=1, seq_len=SEQ_LEN, layers="lean", mode="separate", embedding="device")]
    paths: list[tuple[LayerPath, Literal["device", "host"], tuple[int, ...]]] = [
        ("lean", "device", (1, 2)),
        ("checkpoint", "device", (4, 8, 16)),
        ("offload", "host", (8, 16)),
    ]
    return [
        Cell(micro_batch=size, seq_len=SEQ_LEN, layers=layers, mode="separate", embedding=embedding)
        for layers, embedding, sizes in paths
        for size in sizes
    ]


def structure(rows: InstalledRows) -> Auxiliary:
    """Groups of the usual size over random rows: what the arithmetic costs does not depend on what they hold."""
    import torch

    from wake2vec.contract.tables import DevicesTable, GeometryTable, MorphemesTable
    from wake2vec.contract.words.groups import Pair
    from wake2vec.structure.auxiliary import Auxiliary, Side
    from wake2vec.structure.chosen import choose

    matrix = rows.embedding.rows
    pairs = min(PAIRS, len(matrix) // 3)
    names = [f"word{number}" for number in range(len(matrix))]
    found = choose(
        [
            Pair(word=names[at], base=names[pairs + at], group=str(at % max(1, pairs * GROUPS // PAIRS)))
            for at in range(pairs)
        ],
        [(name, str(at % DEVICES)) for at, name in enumerate(names[2 * pairs : 2 * pairs + DEVICES * MEMBERS])],
        {name: [at] for at, name in enumerate(names)},
        first_new_id=0,
        seed=1,
    )
    start = matrix.detach()[found.rows.to(matrix.device)].cpu()
    return Auxiliary(
        found,
        [
            Side(
                name="input",
                rows=matrix,
                base=torch.empty(0, matrix.shape[1], device=matrix.device),
                start=start,
                untouched_start=start[:0],
                mean_norm=1.0,
                norm_deviation=0.1,
            )
        ],
        found.rows[:0],
        morphemes=MorphemesTable(groups="random"),
        devices=DevicesTable(groups="random", weight=2.0),
        geometry=GeometryTable(ramp_steps=0),
        seed=1,
    )


def _ours(setup: Setup, options: argparse.Namespace) -> None:
    from bench.speed.contenders import ours_lora
    from bench.speed.measure import synchronise
    from bench.speed.sweep import planned, run

    for cell in cells(options.few):
        row, job, plan = planned(setup, cell, "p3", "separate")
        made: list[Any] = []
        parts: list[tuple[Auxiliary, Any]] = []

        def with_structure(rows: InstalledRows, parts: list[tuple[Auxiliary, Any]] = parts) -> Auxiliary:
            parts.append((structure(rows), rows.embedding.rows))
            return parts[0][0]

        def make(plan: Plan = plan, made: list[Any] = made, build: Any = with_structure) -> Contender:
            adapted, contender = ours_lora(
                setup.model,
                setup.shape,
                plan,
                new=setup.new,
                tokens_per_step=setup.tokens,
                dtype=setup.precision.dtype,
                dropout=DROPOUT,
                structure=build,
            )
            made.append(adapted)
            return contender

        def alone(parts: list[tuple[Auxiliary, Any]] = parts, made: list[Any] = made) -> None:
            """Time the auxiliary part by itself, on the gradient that the last update left cleared, and unload."""
            import torch

            while parts:
                part, matrix = parts.pop()
                matrix.grad = torch.zeros_like(matrix)
                part.add_gradients(1, 1.0)
                synchronise(setup.device)
                began = time.perf_counter()
                for _ in range(REPEATS):
                    part.add_gradients(1, 1.0)
                synchronise(setup.device)
                setup.table.notes["auxiliary_seconds"] = (time.perf_counter() - began) / REPEATS
            while made:
                made.pop().unload()

        run(setup, row, make, floor=(job, plan), after=alone)


def _by_hand(setup: Setup, options: argparse.Namespace) -> None:
    """A whole matrix under a mask, LoRA, the library's logits and checkpoints, 8-bit Adam on the card or paged."""
    from bench.speed.contenders import by_hand
    from bench.speed.sweep import run

    for paged in (False, True):
        for micro_batch in (1,) if options.few else (1, 2, 4, 8, 16):
            row = setup.peer_row("by hand, paged" if paged else "by hand, AdamW8bit", micro_batch, SEQ_LEN)
            accumulation = row.tokens_per_step // (micro_batch * SEQ_LEN)
            made: list[Any] = []

            def make(made: list[Any] = made, accumulation: int = accumulation, paged: bool = paged) -> Contender:
                adapted, contender = by_hand(
                    setup.model,
                    setup.shape,
                    new=setup.new,
                    dtype=setup.precision.dtype,
                    accumulation=accumulation,
                    dropout=DROPOUT,
                    paged=paged,
                )
                made.append(adapted)
                return contender

            def unload(made: list[Any] = made) -> None:
                setup.model.disable_input_require_grads()
                while made:
                    made.pop().unload()

            if run(setup, row, make, after=unload).oom:
                break


if __name__ == "__main__":
    main()
