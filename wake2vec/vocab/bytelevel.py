"""Byte-level BPE (GPT-2, Qwen, Llama 3): its alphabet, and how a word becomes an entry of its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wake2vec.contract.words.forms import NOT_AFTER_WORD, NOT_IN_WORD, any_of

SCHEME = "byte-level"

# `bytes_to_unicode` of GPT-2 (Radford et al. 2019, encoder.py): each byte is one printable character.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
# A mark before a word; an apostrophe only where it does not stand in one, as in "don't".
_MARK = rf"(?:[^\r\n \p{{L}}\p{{M}}\p{{N}}'’]|{NOT_AFTER_WORD}['’])"
# The pattern that `ByteLevel(use_regex=True)` has built in (tokenizers, byte_level.rs).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def spell(text: str) -> str:
    """Text as a byte-level vocabulary spells it: a space becomes Ġ, é becomes Ã©."""
    return "".join(_CHARACTERS[byte] for byte in text.encode())


def read(token: str) -> str | None:
    """The text that a token spells, None when it is not whole characters."""
    try:
        return bytes(_BYTES[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):
        return None


def fits(state: dict[str, Any]) -> bool:
    """Whether this is how the tokenizer is made, and a space before a word is never added or dropped."""
    levels = [part for part in _parts(state["pre_tokenizer"]) if part["type"] == "ByteLevel"]
    is_byte_level = state["model"]["type"] == "BPE" and len(levels) == 1 and not levels[0]["add_prefix_space"]
    return is_byte_level and any(part["type"] == "ByteLevel" for part in _parts(state["decoder"]))


def merges_reach_base(backend: Any, state: dict[str, Any]) -> bool:
    """Whether `ignore_merges` keeps base tokenisation as it is: it shows only in tokens that merges do not reach."""
    if state["model"].get("ignore_merges"):
        return True
    added = {token["content"] for token in state["added_tokens"]}
    for token, id_ in state["model"]["vocab"].items():
        if token in added or [piece.id for piece in backend.model.tokenize(token)] == [id_]:
            continue
        text = read(token)
        if text is not None and len(backend.pre_tokenizer.pre_tokenize_str(text)) == 1:
            return False
    return True


def form_token(backend: Any, spelling: str, *, spaced: bool) -> str:
    """The vocabulary string of a word in a form."""
    normalise = backend.normalizer.normalize_str if backend.normalizer else str
    return spell(" " * spaced + normalise(spelling))


def entries(backend: Any, words: Iterable[str], taken: set[str]) -> dict[str, str]:
    """The vocabulary string of each word: with the space inside, else bare, else one that no text reaches."""
    tokens, taken = {}, set(taken)
    for word in words:
        spelled = form_token(backend, word, spaced=False)
        token = next(form for form in _forms(spelled) if form not in taken)
        taken.add(token)
        tokens[word] = token
    return tokens


def _forms(spelled: str) -> Iterable[str]:
    space = spell(" ")
    yield space + spelled
    yield spelled
    while True:  # two spaces and more: no pre-tokenizer leaves them before a word
        space += spell(" ")
        yield space + spelled


def cut_out(backend: Any, state: dict[str, Any], tokens: Iterable[str], *, bare: bool = False) -> None:
    """Let the pre-tokenizer keep words whole that it would cut: those with a hyphen or an apostrophe.

    With `bare`, words without a space too, and apart from the mark before them where it takes the two as one.
    """
    texts = [text for text in map(read, tokens) if text is not None]
    broken = [text for text in texts if len(backend.pre_tokenizer.pre_tokenize_str(text)) > 1]
    patterns = []
    if spaced := [text[1:] for text in broken if text.startswith(" ")]:
        patterns.append(f" {any_of(spaced)}{NOT_IN_WORD}")
    alone = [text for text in texts if bare and not text.startswith(" ")]
    if cut := [text for text in alone if text in set(broken)]:
        patterns.append(f"{NOT_AFTER_WORD}{any_of(cut)}{NOT_IN_WORD}")
    if alone and len(backend.pre_tokenizer.pre_tokenize_str("(a")) == 1:
        patterns.append(f"{_MARK}(?={any_of(alone)}{NOT_IN_WORD})")
    if patterns:
        _put_in_front(state, "|".join(patterns))


def _put_in_front(state: dict[str, Any], pattern: str) -> None:
    """Make `pattern` the first alternative of the pattern that cuts words."""
    parts = _parts(state["pre_tokenizer"])
    place = next(index for index, part in enumerate(parts) if part["type"] == "ByteLevel")
    if parts[place]["use_regex"]:
        parts[place] = {**parts[place], "use_regex": False}
        parts.insert(place, _split(f"{pattern}|{GPT2}"))
    elif place and _is_plain_split(parts[place - 1]):
        parts[place - 1] = _split(f"{pattern}|{parts[place - 1]['pattern']['Regex']}")
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _is_plain_split(part: dict[str, Any]) -> bool:
    return (
        part["type"] == "Split" and part["behavior"] == "Isolated" and "Regex" in part["pattern"] and not part["invert"]
    )


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    if component is None:
        return []
    return list(component.get("pretokenizers") or component.get("decoders") or [component])
