"""Small tokenizers of the makes that lexicons meet, and real ones from packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.materials import default_cache, mistral_tokenizer, qwen3_tokenizer, smollm2_tokenizer
from bench.tiny import make_tokenizer
from wake2vec.contract.errors import InputError
from wake2vec.vocab.inject import load_tokenizer

ENGLISH = "the river ran past the church and the people of the town ran with it, don't you know, to the sea. " * 20


@pytest.fixture(scope="session")
def byte_level() -> Any:
    """Byte-level BPE, as GPT-2."""
    return make_tokenizer(ENGLISH, 400)


@pytest.fixture(scope="session")
def metaspace() -> Any:
    """BPE with ▁ for the space, bytes as a fallback and a space before every text, as Llama 2."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = [f"{word} " for word in ENGLISH.split()]
    backend.train_from_iterator(words, trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False))
    state = json.loads(backend.to_str())
    # bytes are part of the vocabulary but no added tokens, as in Llama's
    state["added_tokens"] = state["added_tokens"][:3]
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


REAL = {"smollm2": smollm2_tokenizer, "qwen3": qwen3_tokenizer, "mistral": mistral_tokenizer}


@pytest.fixture(scope="session", params=REAL)
def real(request: pytest.FixtureRequest) -> Any:
    """A published tokenizer, fetched once into the cache."""
    return load_tokenizer(_fetched(request.param))


def _fetched(name: str) -> Path:
    try:
        return REAL[name](default_cache())
    except InputError as error:
        pytest.skip(f"the tokenizer cannot be fetched: {error}")
