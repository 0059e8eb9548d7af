"""What the new rows of a job begin as: made from published rows, or taken over from an old run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wake2vec.contract.order import Order
from wake2vec.contract.spec import VocabTable
from wake2vec.phases.imported import taken_over
from wake2vec.phases.inputs import input_paths
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.initial import Part, initial_rows


def starting_rows(order: Order, vocab: VocabTable, id_map: IdMap, base: Tensor, tokenizer: Any, part: Part) -> Tensor:
    """Of one side, as [vocab] says, with the old rows in their places. `tokenizer` is the published one. [n_new, d]

    Old rows go to the input side alone: where a model has an output matrix of its own, the old runs had replaced it.
    """
    morphemes = input_paths(order, "morphemes")
    rows = initial_rows(
        id_map,
        base,
        method=vocab.init if part == "input" else vocab.output_init,
        seed=order.training.train.seed,
        tokenizer=tokenizer,
        part=part,
        scale=vocab.init_scale,
        morphemes=morphemes[0] if morphemes else None,
    )
    taken = taken_over(order)
    return rows if taken is None or part == "output" else taken.put_rows(rows)
