"""llama.cpp itself, from a package: what it makes of a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest


class LlamaCpp:
    def __init__(self, path: Path, context: int = 128) -> None:
        self.c: Any = pytest.importorskip("cyllama.llama.llama_cpp", reason="no llama.cpp for this platform")
        self.c.disable_logging()
        # the binding asks a model for its n_vocab, which only the vocabulary has
        whole = type("Whole", (self.c.LlamaModel,), {"n_vocab": property(lambda model: model.get_vocab().n_vocab)})
        self.model = whole(str(path))
        self.vocab = self.model.get_vocab()
        self.asked = self.c.LlamaContextParams()
        self.asked.n_ctx, self.asked.n_threads, self.asked.n_threads_batch = context, 1, 1

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return list(self.vocab.tokenize(text, special, False))

    def text(self, id_: int) -> str:
        return str(self.vocab.token_to_piece(id_, 0, False))

    def logits(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """One token after the other. [tokens, V]"""
        context, found = self.c.LlamaContext(self.model, self.asked), []
        for place, id_ in enumerate(ids):
            batch = self.c.LlamaBatch(n_tokens=1, embd=0, n_seq_max=1)
            batch.add(id_, place, [0], True)
            context.decode(batch)
            found.append(context.get_logits())
        return np.array(found, dtype=np.float32)
