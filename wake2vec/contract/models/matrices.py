"""How published models call their input and output matrices; the first name that is there counts."""

from __future__ import annotations

INPUT = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
OUTPUT = ("lm_head.weight", "embed_out.weight", "output.weight")


def is_called(name: str, endings: tuple[str, ...]) -> bool:
    """Whether a tensor's full name, such as `model.embed_tokens.weight`, is one of these."""
    return any(name == ending or name.endswith(f".{ending}") for ending in endings)
