"""BPE with ▁ for the space (Llama 2, Mistral, Phi-3, Gemma): how a word becomes an entry of its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wake2vec.contract.words.forms import NOT_AFTER_WORD, NOT_IN_WORD, any_of

SCHEME = "metaspace"
SPACE = "▁"

# A stretch that is nothing but "<0x0A>" would, with ignore_merges, become the token of that byte.
_NOT_BEFORE_BYTE = "(?!<0x)"


def fits(state: dict[str, Any]) -> bool:
    """Whether this is how the tokenizer is made."""
    model = state["model"]
    return (
        model["type"] == "BPE"
        and bool(model.get("byte_fallback"))
        and any(token.startswith(SPACE) for token in model["vocab"])
    )


def merges_reach_base(backend: Any, state: dict[str, Any]) -> bool:
    """Whether `ignore_merges` leaves base tokenisation as it is: merges reach every token but bytes and added ones."""
    added = {token["content"] for token in state["added_tokens"]}
    return all(
        token in added or _is_byte(token) or [piece.id for piece in backend.model.tokenize(token)] == [id_]
        for token, id_ in state["model"]["vocab"].items()
    )


def form_token(backend: Any, spelling: str, *, spaced: bool) -> str:
    """The vocabulary string of a word in a form."""
    del backend
    return SPACE * spaced + spelling


def entries(backend: Any, words: Iterable[str], taken: set[str]) -> dict[str, str]:
    """The vocabulary string of each word: with the space inside, or bare where the base has that already."""
    del backend
    return {word: SPACE + word if SPACE + word not in taken else word for word in words}


def cut_out(backend: Any, state: dict[str, Any], tokens: Iterable[str], *, bare: bool = False) -> None:
    """Cut around new words, and nowhere else: text without them stays one stretch, as before."""
    del backend, bare
    tokens = list(tokens)
    spaced = [token.removeprefix(SPACE) for token in tokens if token.startswith(SPACE)]
    alone = [token for token in tokens if not token.startswith(SPACE)]
    patterns = [f"{SPACE}{any_of(spaced)}"] if spaced else []
    if alone:
        patterns.append(f"(?<!{SPACE}){NOT_AFTER_WORD}{any_of(alone)}")
    cut = {
        "type": "Split",
        "pattern": {"Regex": f"(?:{'|'.join(patterns)}){NOT_IN_WORD}{_NOT_BEFORE_BYTE}"},
        "behavior": "Isolated",
        "invert": False,
    }
    before = state["pre_tokenizer"]
    parts = [] if before is None else before.get("pretokenizers", [before])
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*parts, cut]}


def prefix_first_only(state: dict[str, Any]) -> None:
    """Put the ▁ that such tokenizers write before a text there alone, not after each added token as well."""
    before = state["pre_tokenizer"]
    if before and before["type"] == "Metaspace" and before["prepend_scheme"] == "always":
        before["prepend_scheme"] = "first"


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
