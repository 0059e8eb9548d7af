"""A text, a model and new words: vocabularies, data and held-out bytes of trials, made once each."""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.material.materials import Materials, default_cache, materials
from bench.trials.held_out import FRACTION, SPLIT_SEED, HeldOut, Ints, held_out
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.blocks import Blocks
from wake2vec.data.corpus import open_corpus
from wake2vec.data.dataset import Data, prepare
from wake2vec.data.lines import LineBreaks, as_printed, stretches
from wake2vec.data.permutation import blocks_of_step
from wake2vec.model.load import load_base
from wake2vec.vocab.idmap import IdMap, Match
from wake2vec.vocab.inject import inject, load_tokenizer
from wake2vec.vocab.occurrences import forms_in

FormsOf = Literal["one", "shared", "separate"]
Body = Literal["fp32", "exact", "fp16", "bf16", "nf4"]  # fp32 may multiply in TF32, exact does not
PRINT = 60  # characters of a line of print
TINY = Path(__file__).resolve().parents[2] / "jobs" / "tiny"


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How text becomes tokens."""

    match: Match | Literal["none"] = "word"
    forms: FormsOf = "one"
    line_breaks: LineBreaks = "keep"
    seq_len: int = 128


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """A tokenizer, its id map where it has new words, and the text as it cuts it."""

    tokenizer: Any
    id_map: IdMap | None
    data: Data


class Lab:
    """One material on one device. `scratch` is a folder of this process."""

    def __init__(self, found: Materials, device: str, scratch: Path) -> None:
        self.found, self.device, self.scratch = found, device, scratch
        self.base = load_tokenizer(found.model_dir)
        self.words = read_lexicon(found.lexicon_path).words
        self.corpus = open_corpus([found.text_path])
        self.held_out: HeldOut = held_out(self.corpus, self.words)
        self._cuttings: dict[Cut, Cutting] = {}
        self._model: Any = None

    def cutting(self, cut: Cut) -> Cutting:
        if cut not in self._cuttings:
            self._cuttings[cut] = self._cut(cut)
        return self._cuttings[cut]

    def model(self, body: Body = "fp32") -> Any:
        """A model of its own, on the device, frozen."""
        torch.set_float32_matmul_precision("highest" if body == "exact" else "high")
        if body not in ("fp32", "exact"):
            compute = "fp16" if body == "nf4" and self.device != "cpu" else "auto"  # as a T4 has it
            return load_base(str(self.found.model_dir), load=body, compute=compute, device=self.device)[0]
        if self._model is None:
            from transformers import AutoModelForCausalLM

            loaded: Any = AutoModelForCausalLM.from_pretrained(self.found.model_dir, dtype=torch.float32)
            self._model = loaded.to(self.device).eval().requires_grad_(False)
        return copy.deepcopy(self._model)

    def met(self, *, steps: int, batch: int, seq_len: int, seed: int) -> Ints:
        """How often the steps of a trial meet each word as one id after a space. [words]"""
        cutting = self.cutting(Cut(seq_len=seq_len))
        assert cutting.id_map is not None, "there are words"
        count = np.zeros(cutting.id_map.n_ids, dtype=np.int64)
        for index in order(cutting.data.blocks, steps, batch, seed):
            count += np.bincount(cutting.data.blocks.batch(index)[1].ravel(), minlength=len(count))
        ids = {entry.word: entry.id for entry in cutting.id_map.entries}
        return np.array([count[ids[word]] for word in self.words])

    def batches(self, index: Iterator[Ints], blocks: Blocks) -> Iterator[tuple[Tensor, Tensor]]:
        for some in index:
            inputs, targets = (torch.from_numpy(array).to(self.device) for array in blocks.batch(some))
            yield inputs, targets

    def _cut(self, cut: Cut) -> Cutting:
        tokenizer, id_map = self.base, None
        if cut.match != "none":
            lines = as_printed(self.corpus, cut.line_breaks)
            forms = frozenset() if cut.forms == "one" else forms_in(stretches(self.corpus, lines), self.words)
            folder = self.scratch / f"vocabulary-{len(self._cuttings)}"
            made = inject(
                self.base, self.words, directory=folder, match=cut.match, forms=forms, shared=cut.forms == "shared"
            )
            tokenizer, id_map = made.tokenizer, made.id_map
        data = prepare(
            self.corpus,
            tokenizer,
            seq_len=cut.seq_len,
            fraction=FRACTION,
            seed=SPLIT_SEED,
            line_breaks=cut.line_breaks,
        )
        return Cutting(tokenizer=tokenizer, id_map=id_map, data=data)


def order(blocks: Blocks, steps: int, batch: int, seed: int, twice: Ints | None = None) -> Iterator[Ints]:
    """The blocks of each step; those of `twice` stand two times in an epoch."""
    index = np.arange(len(blocks)) if twice is None else np.concatenate([np.arange(len(blocks)), twice])
    for step in range(steps):
        yield index[blocks_of_step(step, batch, len(index), seed)]


def material(name: str, scratch: Path) -> Materials:
    """The material of a lab by its name."""
    return MATERIALS[name](scratch)


def _smollm2(scratch: Path) -> Materials:
    del scratch
    return materials(default_cache())


def _printed(scratch: Path) -> Materials:
    """The same, the text broken in lines as a printer would have."""
    return in_print(materials(default_cache()), scratch)


def in_print(found: Materials, scratch: Path) -> Materials:
    out = scratch / "printed.txt"
    paragraphs = found.text_path.read_text(encoding="utf-8").split("\n\n")
    out.write_text("\n\n".join(textwrap.fill(one, PRINT, break_on_hyphens=False) for one in paragraphs))
    return Materials(model_dir=found.model_dir, text_path=out, lexicon_path=found.lexicon_path)


def _untied(scratch: Path) -> Materials:
    from bench.material.tiny import untied_laboratory

    del scratch
    model, text, lexicon = untied_laboratory(default_cache())
    return Materials(model_dir=model, text_path=text, lexicon_path=lexicon)


def _tiny(scratch: Path) -> Materials:
    del scratch
    return Materials(model_dir=TINY / "model", text_path=TINY / "corpus.txt", lexicon_path=TINY / "lexicon.txt")


def _of_vocabulary(tokens: int) -> Callable[[Path], Materials]:
    def found(scratch: Path) -> Materials:
        from bench.material.tiny import vocabulary_laboratory

        del scratch
        model, text, lexicon = vocabulary_laboratory(default_cache(), tokens)
        return Materials(model_dir=model, text_path=text, lexicon_path=lexicon)

    return found


MATERIALS: dict[str, Callable[[Path], Materials]] = {
    "smollm2": _smollm2,
    "smollm2-printed": _printed,
    "untied": _untied,
    "tiny": _tiny,
    "tiny-printed": lambda scratch: in_print(_tiny(scratch), scratch),
    "vocabulary-2048": _of_vocabulary(2048),
    "vocabulary-16384": _of_vocabulary(16384),
}
