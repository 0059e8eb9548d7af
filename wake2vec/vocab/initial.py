"""What the rows of new tokens start from, out of the rows of the base tokens.

With E the base matrix, mean and std its mean and standard deviation over base tokens (never over padding rows), d its
width, z ~ N(0, 1)^d drawn for the word:

mean           mean(E)                                      Hewitt 2021, "Initializing new word embeddings"
mean_noise     mean(E) + scale · 0.1 · std_per_dimension(E) · z   wake2vec, TinyLlama P1
spherical      z / |z| · scale · std(E) · √d                wake2vec, Llama, Mistral and Qwen P1 (scale 1.5)
subwords       mean of E over the pieces of the word        Gee et al. 2022, "Fast vocabulary transfer"
first_piece    E of the first piece of the word             what a model predicts where the word begins; for output rows
compositional  α E(prefix) + (1 - 2α) E(root) + α E(suffix) + 0.01 · std(E) · z, α = 0.25, E(x) the mean over the pieces
               of x, α of a missing part going to the root  wake2vec README, 2025

z depends on the seed, the word and the matrix alone: the order of the lexicon and the other words in it change nothing.
Statistics are taken in fp64 and rows returned in fp32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from wake2vec.contract.errors import InputError
from wake2vec.data.tokens import pieces
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.morphemes import COMMON, Affixes, parts_of, read_affixes

Method = Literal["mean", "mean_noise", "spherical", "subwords", "first_piece", "compositional"]
Part = Literal["input", "output"]

_NOISE = 0.1
_ALPHA = 0.25
_COMPOSED_NOISE = 0.01
ROWS_AT_ONCE = 2048


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of the base rows: mean and standard deviation of each dimension `[d]`, and of all entries."""

    mean: Tensor
    std_per_dimension: Tensor
    std: float


def initial_rows(
    id_map: IdMap,
    base_weight: Tensor,  # [rows, d], any dtype and device; rows may be more than the tokenizer has tokens
    *,
    method: Method,
    seed: int,
    tokenizer: Any,
    part: Part = "input",
    scale: float = 1.0,
    morphemes: Path | None = None,
    stats: Statistics | None = None,  # of the base rows, where they are known already
) -> Tensor:
    """Starting values of the words' rows of one matrix, `[words, d]` fp32 on the CPU. `tokenizer` is the base's.

    `scale` acts on the radius of spherical and on the noise of mean_noise; `morphemes` names a table of affixes.
    Raises InputError when the tokenizer is not the one that the id map starts from.
    """
    if len(tokenizer) > id_map.first_new_id:
        raise InputError("initial rows", "the tokenizer already has new words", "pass the base model's own tokenizer")
    base = base_weight.detach()[: id_map.first_new_id]
    start = _Start(
        base=base,
        known=stats,
        seed=seed,
        tokenizer=tokenizer,
        part=part,
        scale=scale,
        affixes=read_affixes(morphemes) if morphemes else COMMON,
    )
    rows = torch.empty(len(id_map.words), base.shape[1], dtype=torch.float32)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        words = id_map.words[first : first + ROWS_AT_ONCE]
        rows[first : first + len(words)] = _METHODS[method](start, words)
    return rows


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What every method starts from."""

    base: Tensor
    known: Statistics | None
    seed: int
    tokenizer: Any
    part: Part
    scale: float
    affixes: Affixes

    @cached_property
    def stats(self) -> Statistics:
        """Asked for by some methods alone: it is a pass over the whole matrix."""
        return self.known or statistics(blocks_of(self.base))

    def noise(self, words: Sequence[str]) -> Tensor:
        return noise(words, self.base.shape[1], self.seed, self.part)

    def of(self, texts: Sequence[str]) -> Tensor:
        """Mean of the rows of each text's pieces, `[texts, d]`."""
        return mean_of_pieces(pieces(texts, self.tokenizer), self.base)


def _mean(start: _Start, words: Sequence[str]) -> Tensor:
    return start.stats.mean.repeat(len(words), 1)


def _mean_noise(start: _Start, words: Sequence[str]) -> Tensor:
    return start.stats.mean + start.scale * _NOISE * start.stats.std_per_dimension * start.noise(words)


def _spherical(start: _Start, words: Sequence[str]) -> Tensor:
    z = start.noise(words)
    radius = start.scale * start.stats.std * math.sqrt(z.shape[1])
    return z / z.norm(dim=1, keepdim=True) * radius


def _subwords(start: _Start, words: Sequence[str]) -> Tensor:
    return start.of(words)


def _first_piece(start: _Start, words: Sequence[str]) -> Tensor:
    ids = [found[0] for found in pieces(words, start.tokenizer)]
    return start.base[torch.tensor(ids, device=start.base.device)].cpu().double()


def _compositional(start: _Start, words: Sequence[str]) -> Tensor:
    parts = [parts_of(word, start.affixes) for word in words]
    rows = start.of([root for _, root, _ in parts])
    root = rows.clone()
    for place in (0, 2):
        having = [row for row, part in enumerate(parts) if part[place]]
        if having:
            affix = start.of([parts[row][place] for row in having])
            rows[having] += _ALPHA * (affix - root[having])
    return rows + _COMPOSED_NOISE * start.stats.std * start.noise(words)


_METHODS: dict[Method, Callable[[_Start, Sequence[str]], Tensor]] = {
    "mean": _mean,
    "mean_noise": _mean_noise,
    "spherical": _spherical,
    "subwords": _subwords,
    "first_piece": _first_piece,
    "compositional": _compositional,
}


def blocks_of(base: Tensor) -> Iterator[Tensor]:
    """Rows `[n, d]` a few thousand at a time."""
    return (base[first : first + ROWS_AT_ONCE] for first in range(0, len(base), ROWS_AT_ONCE))


def statistics(blocks: Iterable[Tensor]) -> Statistics:
    """Statistics of base rows that come in blocks of ROWS_AT_ONCE: in others, the last bits would differ."""
    total, squares, n, d = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0, 0
    for block in blocks:
        values = block.cpu().double()  # widened here: 16 bits cross from the card
        total = total + values.sum(0)
        squares = squares + values.square().sum(0)
        n, d = n + len(values), values.shape[1]
    mean = total / n
    variance = (squares / n - mean.square()).clamp_min(0)
    overall = float(squares.sum() / (n * d) - (total.sum() / (n * d)).square())
    return Statistics(mean=mean, std_per_dimension=variance.sqrt(), std=math.sqrt(max(0.0, overall)))


def noise(words: Sequence[str], d: int, seed: int, part: Part) -> Tensor:
    """N(0, 1) for each word, `[words, d]` fp64."""
    z = torch.empty(len(words), d, dtype=torch.float64)
    generator = torch.Generator()
    for row, word in enumerate(words):
        digest = hashlib.sha256(f"{seed}\0{part}\0{word}".encode()).digest()
        generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        torch.randn(d, generator=generator, dtype=torch.float64, out=z[row])
    return z


def mean_of_pieces(pieces_of: Sequence[Sequence[int]], base: Tensor) -> Tensor:
    """Mean of base rows for each list of ids, `[lists, d]` fp64."""
    lengths = torch.tensor([len(ids) for ids in pieces_of])
    flat = torch.tensor([id_ for ids in pieces_of for id_ in ids], device=base.device)
    owners = torch.repeat_interleave(torch.arange(len(pieces_of)), lengths)
    sums = torch.zeros(len(pieces_of), base.shape[1], dtype=torch.float64)
    sums.index_add_(0, owners, base[flat].cpu().double())
    return sums / lengths[:, None]
