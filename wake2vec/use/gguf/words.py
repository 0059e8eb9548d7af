"""A tokenizer with new words as llama.cpp reads it: each word one token in prompts, and base text cut as before.

Byte-level BPE: a word is an ordinary token, which `ignore_merges` finds whole. Only some of llama.cpp's pre-tokenizers
have that. Where none of them cuts base text as this tokenizer does, and for a word that they would cut (a hyphen, an
apostrophe), the word is *user-defined*: found as it is spelt, its space inside, longest first, before anything else.
Such a match looks at no end of a word, so a word that begins a longer base token stays ordinary, and is read in pieces.
Metaspace BPE (SentencePiece) knows user-defined words alone.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from unicodedata import category

import gguf
from gguf import TokenType

from wake2vec.contract.errors import ModelError
from wake2vec.vocab import bytelevel, metaspace
from wake2vec.vocab.idmap import FormIds, IdMap, WordIds

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What a tokenizer cuts by: llama.cpp's name for it, and whether it finds whole entries there.
_PATTERNS = {_LLAMA3: ("llama-bpe", True), _TEKKEN: ("tekken", True), _QWEN2: ("qwen2", False)}


@dataclass(kw_only=True)
class Words:
    """The tokenizer of a GGUF file."""

    model: str  # llama.cpp's name of its make
    pre: str
    tokens: list[str]
    types: list[TokenType]
    scores: list[float] | None = None
    in_pieces: list[str] = field(default_factory=list)  # new words that are not user-defined and should be

    @property
    def remark(self) -> str | None:
        """What a person should know of prompts; None where new words are whole in them."""
        if not self.in_pieces:
            return None
        return f"in prompts, {len(self.in_pieces):,} of the new words may be read in pieces: {_some(self.in_pieces)}"

    def add_to(self, writer: gguf.GGUFWriter, folder: Path, config: Any) -> None:
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(False)  # else one more space would follow each user-defined word
        special = gguf.SpecialVocab(folder, load_merges=self.scores is None, n_vocab=len(self.tokens))
        for kind in special.special_token_types:
            if isinstance(found := getattr(config, f"{kind}_token_id", None), int):
                special.special_token_ids.setdefault(kind, found)
        special.add_special_token = _put_around(folder)
        special.add_to_gguf(writer, quiet=True)


def words_of(folder: Path, id_map: IdMap, size: int) -> Words:
    """`size`: rows of the model. Raises ModelError for a make of tokenizer that llama.cpp does not read alike."""
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if id_map.scheme == bytelevel.SCHEME or (id_map.scheme == "anywhere" and bytelevel.fits(state)):
        return _byte_level(folder, state, id_map, size)
    if id_map.scheme == metaspace.SCHEME:
        return _metaspace(state, id_map, size)
    kind = f"{state['model']['type']}, words {id_map.scheme}"
    raise ModelError(folder, f"llama.cpp has no tokenizer that cuts as this one ({kind})", "export it without --gguf")


def _byte_level(folder: Path, state: dict[str, Any], id_map: IdMap, size: int) -> Words:
    pattern = _pattern(state)
    if pattern is None:
        raise ModelError(folder, "its pre-tokenizer has no name in llama.cpp", "export it without --gguf")
    pre, finds_whole = ("gpt-2", False) if pattern == bytelevel.GPT2 else _PATTERNS[pattern]
    base = [token for token, id_ in state["model"]["vocab"].items() if id_ < id_map.first_new_id]
    texts = sorted(text for text in map(bytelevel.read, base) if text)
    if pattern == _QWEN2 and not any(map(_has_number, texts)):
        pre, finds_whole = "llama-bpe", True  # it leaves three digits together: no matter where no token has two
    words = Words(model="gpt2", pre=pre, **_table(state, size))
    is_cut = _cutter(pattern)
    new = [entry for entry in _added(id_map) if words.types[entry.id] == TokenType.NORMAL]
    apart = [entry for entry in new if not finds_whole or is_cut(bytelevel.read(entry.token) or "")]
    _define(words, {entry.id: bytelevel.read(entry.token) or "" for entry in apart}, texts)
    return words


def _metaspace(state: dict[str, Any], id_map: IdMap, size: int) -> Words:
    words = Words(model="llama", pre="default", **_table(state, size))
    made = ("".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in state["model"]["merges"])
    ranks: dict[str, int] = {}
    for rank, token in enumerate(made):
        ranks.setdefault(token, rank)
    words.scores = [-float(ranks.get(token, len(ranks))) for token in words.tokens]  # the likeliest merge is the first
    for id_, token in enumerate(words.tokens):
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            words.types[id_] = TokenType.BYTE
    if (unknown := state["model"].get("unk_token")) is not None:
        words.types[words.tokens.index(unknown)] = TokenType.UNKNOWN
    texts = [token.replace(metaspace.SPACE, " ") for token in words.tokens]
    new = {entry.id: texts[entry.id] for entry in _added(id_map)}
    for id_, text in new.items():
        words.tokens[id_] = text  # with the space as it is, so that nothing is merged into it
    _define(words, new, sorted(texts[: id_map.first_new_id]))
    return words


def _added(id_map: IdMap) -> list[WordIds | FormIds]:
    return [*id_map.new, *id_map.forms]


def _define(words: Words, new: dict[int, str], base: list[str]) -> None:
    """Make words user-defined that no base token begins with; the rest stay as they are. `base` is sorted."""
    for id_, text in new.items():
        place = bisect_left(base, text)
        begins_another = place < len(base) and base[place].startswith(text)
        if text[:1] == " " and text[:2] != "  " and not begins_another:
            words.tokens[id_], words.types[id_] = text, TokenType.USER_DEFINED
        else:
            words.in_pieces.append(text.strip())


def _table(state: dict[str, Any], size: int) -> dict[str, Any]:
    """Tokens and types by id; an id without a token is padding."""
    tokens, types = [f"[PAD{id_}]" for id_ in range(size)], [TokenType.UNUSED] * size
    for token, id_ in state["model"]["vocab"].items():
        tokens[id_], types[id_] = token, TokenType.NORMAL
    for added in state["added_tokens"]:
        id_, text = added["id"], added["content"]
        is_control = added["special"] or re.fullmatch(r"<[|｜].*[|｜]>", text)
        tokens[id_], types[id_] = text, TokenType.CONTROL if is_control else TokenType.USER_DEFINED
    return {"tokens": tokens, "types": types}


def _some(words: list[str]) -> str:
    return ", ".join(words[:3]) + ("" if len(words) <= 3 else ", …")


def _has_number(text: str) -> bool:
    """Of more than one digit."""
    return any(category(one)[0] == category(other)[0] == "N" for one, other in pairwise(text))


def _pattern(state: dict[str, Any]) -> str | None:
    """The known pattern that the published tokenizer cuts by; injection puts new words in front of it."""
    parts = state["pre_tokenizer"].get("pretokenizers", [state["pre_tokenizer"]])
    if [part["type"] for part in parts] == ["ByteLevel"] and parts[0]["use_regex"]:
        return bytelevel.GPT2
    if [part["type"] for part in parts] != ["Split", "ByteLevel"] or parts[1]["use_regex"]:
        return None
    found = parts[0]["pattern"].get("Regex", "")
    return next((known for known in (*_PATTERNS, bytelevel.GPT2) if f"|{found}".endswith(f"|{known}")), None)


def _cutter(pattern: str) -> Callable[[str], bool]:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    split = Split(Regex(pattern), "isolated")
    return lambda text: len(split.pre_tokenize_str(text)) > 1


def _put_around(folder: Path) -> dict[str, bool]:
    """Whether the tokenizer puts something before a text, and after it."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids, bare = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    before = next(place for place in range(len(ids)) if ids[place : place + len(bare)] == bare)
    return {"bos": before > 0, "eos": before + len(bare) < len(ids)}
