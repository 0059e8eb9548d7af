"""A published model of each family, and what P1 makes of it, put together without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.families import FAMILIES, VARIATIONS, build
from tests.machine import JOBS
from wake2vec.contract.files import write_json
from wake2vec.model.bare import read_config, read_outline
from wake2vec.model.published_files import Origin, PublishedFiles
from wake2vec.use.gguf.words import Words, words_of
from wake2vec.use.gguf.write import GgufFile
from wake2vec.use.merged_weights import Trained, lay_out
from wake2vec.use.shards import TensorToWrite, write_model
from wake2vec.vocab.idmap import IdMap
from wake2vec.vocab.inject import inject

NEW = ["riverrun", "gracehoper", "prankquean", "riverrunner", "o'erwicker", "tip-top-lick"]


@dataclass(frozen=True, kw_only=True)
class Made:
    folder: Path  # as export writes it for transformers
    config: Any
    pieces: list[TensorToWrite]
    id_map: IdMap

    @property
    def words(self) -> Words:
        return words_of(self.folder, self.id_map, self.id_map.n_ids)

    def write(self, kind: str) -> Path:
        path = self.folder / f"model-{kind}.gguf"
        file = GgufFile(self.config, self.pieces, self.words, kind)
        file.write(path, name="tiny", vocab=self.folder, progress=lambda done, whole: None)
        return path

    @torch.no_grad()
    def logits(self, ids: list[int]) -> torch.Tensor:
        """As transformers computes them from the folder. [tokens, V]"""
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        logits: torch.Tensor = model.eval()(input_ids=torch.tensor([ids])).logits[0]
        return logits


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    def make(name: str, tokenizer: Any = None, new: Sequence[str] = NEW) -> Made:
        folder = tmp_path_factory.mktemp("made")
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(JOBS / "tiny" / "model")
        size = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
        family = (FAMILIES | VARIATIONS)[name]
        build(family, vocab_size=size).save_pretrained(folder / "published")
        injection = inject(tokenizer, new, directory=folder / "export")
        width = 32
        rows = torch.randn(injection.id_map.n_new, width, generator=torch.Generator().manual_seed(2)) * 0.15
        trained = Trained(first_new_id=injection.id_map.first_new_id, input_rows=rows)
        origin = Origin(path=str(folder / "published"))
        config, files = read_config(origin), PublishedFiles(origin)
        layout = lay_out(files, trained, outline=read_outline(files, config), merge=True, dtype=None)
        write_model(folder / "export", layout.pieces)
        whole = config.to_dict() | {"vocab_size": trained.vocabulary, "tie_word_embeddings": layout.tied}
        write_json(folder / "export" / "config.json", whole)
        return Made(folder=folder / "export", config=config, pieces=layout.pieces, id_map=injection.id_map)

    return make
