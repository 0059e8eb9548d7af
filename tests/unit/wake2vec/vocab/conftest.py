"""Small tokenizers of the makes that lexicons meet, and real ones from packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.material.materials import default_cache, mistral_tokenizer, qwen3_tokenizer, smollm2_tokenizer
from bench.material.tiny import make_tokenizer
from tests.tokenizers import metaspace_tokenizer
from wake2vec.contract.errors import InputError
from wake2vec.vocab.inject import load_tokenizer

ENGLISH = "the river ran past the church and the people of the town ran with it, don't you know, to the sea. " * 20


@pytest.fixture(scope="session")
def byte_level() -> Any:
    """Byte-level BPE, as GPT-2."""
    return make_tokenizer(ENGLISH, 400)


@pytest.fixture(scope="session")
def metaspace() -> Any:
    return metaspace_tokenizer(ENGLISH)


REAL = {"smollm2": smollm2_tokenizer, "qwen3": qwen3_tokenizer, "mistral": mistral_tokenizer}


# Qwen3's cuts as SmolLM2's by bytes, with many times its tokens
@pytest.fixture(
    scope="session",
    params=[pytest.param(one, marks=pytest.mark.sweep) if one == "qwen3" else one for one in REAL],
)
def real(request: pytest.FixtureRequest) -> Any:
    """A published tokenizer, fetched once into the cache."""
    return load_tokenizer(_fetched(request.param))


def _fetched(name: str) -> Path:
    try:
        return REAL[name](default_cache())
    except InputError as error:
        pytest.skip(f"the tokenizer cannot be fetched: {error}")
