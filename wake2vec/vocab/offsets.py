"""What a form adds to a word's row, as published tokens have it: the mean of `x` - `Ġx`, of `ĠX` - `Ġx`, and so on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wake2vec.contract.words.forms import OWN_IDS, Form, spelt
from wake2vec.vocab import bytelevel, metaspace
from wake2vec.vocab.idmap import IdMap

FORMS = OWN_IDS[1:]  # those that add something; a word after a space is the word itself
_LEAST_LETTERS = 2
_SPACES = {bytelevel.SCHEME: bytelevel.spell(" "), metaspace.SCHEME: metaspace.SPACE}
_PAIRS_AT_ONCE = 2048


def words_with(id_map: IdMap) -> list[Tensor]:
    """For each form the rows of the words that have it, ascending."""
    rows: dict[Form, list[int]] = {form: [] for form in FORMS}
    for entry in id_map.forms:
        rows[entry.form].append(entry.of)
    return [torch.tensor(rows[form], dtype=torch.int64) for form in FORMS]


def form_offsets(base: Tensor, vocabulary: Mapping[str, int], scheme: str) -> tuple[Tensor, dict[Form, int]]:
    """Mean differences between published rows, `[n_forms, d]` fp32, and of how many pairs; 0 where there is none.

    `base` are the published rows, padding left out; `vocabulary` is the published tokenizer's.
    """
    space = _SPACES.get(scheme, "")
    words = [token.removeprefix(space) for token in vocabulary if token.startswith(space)]
    words = [word for word in words if len(word) >= _LEAST_LETTERS and word.isascii() and word.islower()]
    words = [word for word in words if word.isalpha()]
    found, counts = torch.zeros(len(FORMS), base.shape[1]), dict[Form, int]()
    for place, form in enumerate(FORMS):
        before = space if form.startswith("spaced") else ""
        named = ((vocabulary.get(before + spelt(word, form)), vocabulary[space + word]) for word in words)
        pairs = sorted((one, other) for one, other in named if one is not None and max(one, other) < len(base))
        counts[form] = len(pairs)
        if pairs:
            found[place] = _mean_difference(torch.tensor(pairs), base)
    return found, counts


def _mean_difference(pairs: Tensor, base: Tensor) -> Tensor:
    total = torch.zeros(base.shape[1], dtype=torch.float64)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[start : start + _PAIRS_AT_ONCE]
        one, other = (base[part[:, side].to(base.device)].cpu().double() for side in (0, 1))
        total += (one - other).sum(0)
    return (total / len(pairs)).float()
