"""Give new words one token each in a base model's tokenizer, changing nothing else about it.

A new word becomes an entry of the tokenizer's own vocabulary that only a whole word can reach, with the space before it
inside where the tokenizer has such tokens ("Ġriverrun", "▁riverrun"): no extra token for the space, exact decoding.
Text without lexicon words is cut as before. How a tokenizer is changed depends on its make:

byte-level BPE  `ignore_merges` lets a stretch between two cuts of the pre-tokenizer be one token when it is an entry.
                Words that the pre-tokenizer would cut (hyphen, apostrophe) get an alternative in front of its pattern.
                The Llama-3 tokenizer ships with `ignore_merges`; for others it is used only where every base token that
                stands between two cuts is reached by its merges too, else it would change base tokenisation.
metaspace BPE   (Llama 2, Mistral, Phi-3, Gemma) the same, with a cut around lexicon words alone.
added           any other make: plain added tokens that match whole words; the space stays a token of its own.
anywhere        the original scripts' `add_tokens`: matches inside words too. For continuing such a run.

A word has one id, and where forms are asked for one more for each that the text needs: bare, capitalised, in capitals.
Its form with the space is taken; where the base vocabulary already has that form, the bare
one is new. A word with both forms in the base vocabulary that is nevertheless not *known* (known = its raw spelling is
a base token, the rule of the published counts) keeps an id that no text reaches.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import InputError, ModelError
from wake2vec.contract.words.forms import OWN_IDS, Form, spelt
from wake2vec.data.tokens import fingerprint
from wake2vec.vocab import bytelevel, metaspace
from wake2vec.vocab.idmap import Case, FormIds, IdMap, Match, WordIds

# What a saved tokenizer is made of; anything else (vocab.json, merges.txt, tokenizer.model) would be the base's.
_KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
# Classes named after a model rebuild the tokenizer from its vocabulary and drop what was changed; this one does not.
_PLAIN_CLASS = "PreTrainedTokenizerFast"
_PLAIN_CLASSES = (_PLAIN_CLASS, "TokenizersBackend")


@dataclass(frozen=True, kw_only=True)
class Injection:
    """A tokenizer with the new words, as loaded from `directory`, and its id map."""

    tokenizer: Any
    id_map: IdMap


@dataclass(frozen=True, kw_only=True)
class _Change:
    """A changed tokenizer in the form of tokenizer.json, and the vocabulary string of each new word."""

    scheme: str
    state: dict[str, Any]
    tokens: dict[str, str]
    forms: tuple[FormIds, ...] = ()


def inject(
    base: Any,
    words: Sequence[str],
    *,
    directory: Path,
    match: Match = "word",
    case: Case = "as-is",
    forms: Set[tuple[str, Form]] = frozenset(),
    shared: bool = False,
) -> Injection:
    """Write the changed tokenizer to `directory` and load it back from there.

    New ids follow the base tokenizer's last id without a gap, in the order of `words`; then come those of the words'
    `forms`, where a form is no token of the base and no word of the list. `shared`: they have no rows of their own.
    Raises ModelError for a tokenizer without a fast version, InputError when every word is already known.
    """
    if not getattr(base, "is_fast", False):
        raise ModelError(_name(base), "the tokenizer has no fast version", "use a model that ships a tokenizer.json")
    listed = _with_capitals(words) if case == "also-capitalised" else list(dict.fromkeys(words))
    vocabulary: dict[str, int] = base.get_vocab()
    new = [word for word in listed if word not in vocabulary]
    if not new:
        problem = f"the base tokenizer already knows all {len(listed)} words"
        raise InputError("lexicon", problem, "add words that are new to this model")
    first = max(len(base), 1 + max(vocabulary.values()))
    words_too = set(listed)
    forms = {one for one in forms if one[1] in OWN_IDS[:2] or spelt(*one) not in words_too}
    change, tokenizer = _exact(base, new, forms, first, directory, match)
    reached = _reached(tokenizer, {word: first + row for row, word in enumerate(new)})
    rows = {word: row for row, word in enumerate(new)}
    entries = (_entry(word, rows.get(word), first, change, vocabulary, reached) for word in listed)
    id_map = IdMap(
        first_new_id=first,
        entries=tuple(entries),
        match=match,
        case=case,
        scheme=change.scheme,
        base_fingerprint=fingerprint(base),
        forms=change.forms,
        shared=shared and bool(change.forms),
    )
    id_map.check(tokenizer, directory)
    return Injection(tokenizer=tokenizer, id_map=id_map)


def load_tokenizer(directory: Path) -> Any:
    """A tokenizer from a local folder, as plain `AutoTokenizer` loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory)


def _exact(
    base: Any, new: list[str], forms: Set[tuple[str, Form]], first: int, directory: Path, match: Match
) -> tuple[_Change, Any]:
    """The first way of adding words that decodes each exactly, tried on the tokenizer as it was saved."""
    ways = [_anywhere] if match == "anywhere" else [_in_vocabulary, _added]
    for way in ways:
        change = way(base, new, forms, first)
        if change is None:
            continue
        _save(base, change, directory)
        tokenizer = load_tokenizer(directory)
        spelled = [*new, *(spelt(new[entry.of], entry.form) for entry in change.forms)]
        if way is not _in_vocabulary or _is_exact(base, tokenizer, spelled):
            return change, tokenizer
    raise AssertionError(f"no way of adding {len(new)} words was taken")


def _in_vocabulary(base: Any, new: list[str], forms: Set[tuple[str, Form]], first: int) -> _Change | None:
    state = json.loads(base.backend_tokenizer.to_str())
    make = next((make for make in (bytelevel, metaspace) if make.fits(state)), None)
    if make is None or not make.merges_reach_base(base.backend_tokenizer, state):
        return None
    # base tokens that stand outside the model's vocabulary get their ids by its length: pin them before it grows
    model_vocabulary: dict[str, int] = state["model"]["vocab"]
    for added in state["added_tokens"]:
        model_vocabulary.setdefault(added["content"], added["id"])
    tokens = make.entries(base.backend_tokenizer, new, set(model_vocabulary))
    model_vocabulary.update({tokens[word]: first + row for row, word in enumerate(new)})

    def token_of(word: str, form: Form) -> str:
        spaced = form.startswith("spaced")
        return str(make.form_token(base.backend_tokenizer, spelt(word, form), spaced=spaced))

    found = _form_ids(new, forms, token_of, set(model_vocabulary), first)
    model_vocabulary.update({entry.token: entry.id for entry in found})
    state["model"]["ignore_merges"] = True
    every = [*tokens.values(), *(entry.token for entry in found)]
    make.cut_out(base.backend_tokenizer, state, every, bare=bool(found))
    return _Change(scheme=make.SCHEME, state=state, tokens=tokens, forms=found)


def _form_ids(
    new: list[str],
    forms: Set[tuple[str, Form]],
    token_of: Callable[[str, Form], str],
    taken: set[str],
    first: int,
) -> tuple[FormIds, ...]:
    """An id for each form whose vocabulary string is free, form by form in the order of the words."""
    found: list[FormIds] = []
    for form in OWN_IDS:
        for row, word in enumerate(new):
            if (word, form) in forms and (token := token_of(word, form)) not in taken:
                taken.add(token)
                found.append(FormIds(of=row, form=form, token=token, id=first + len(new) + len(found)))
    return tuple(found)


def _added(base: Any, new: list[str], forms: Set[tuple[str, Form]], first: int) -> _Change:
    from tokenizers import AddedToken

    # such a token stands after a space and without one, so a word's forms differ by their letters alone
    found = _form_ids(new, forms, spelt, {*base.get_vocab(), *new}, first)
    tokens = [AddedToken(word, single_word=True, normalized=False) for word in [*new, *(one.token for one in found)]]
    return replace(_by_add_tokens(base, new, tokens, first, "added"), forms=found)


def _anywhere(base: Any, new: list[str], forms: Set[tuple[str, Form]], first: int) -> _Change:
    del forms  # the original had none
    return _by_add_tokens(base, new, new, first, "anywhere")


def _by_add_tokens(base: Any, new: list[str], tokens: Sequence[Any], first: int, scheme: str) -> _Change:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(base.backend_tokenizer.to_str())
    backend.add_tokens(list(tokens))
    if backend.token_to_id(new[0]) != first:
        raise ModelError(
            _name(base), "the tokenizer's ids have gaps that added tokens would fill", 'use match = "word"'
        )
    state = json.loads(backend.to_str())
    if scheme == "added":
        metaspace.prefix_first_only(state)
    return _Change(scheme=scheme, state=state, tokens={word: word for word in new})


def _save(base: Any, change: _Change, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        base.save_pretrained(scratch)
        config = json.loads((Path(scratch) / "tokenizer_config.json").read_text(encoding="utf-8"))
        for name in _KEPT[1:]:
            if (Path(scratch) / name).exists():
                (Path(scratch) / name).replace(directory / name)
    # rebuilding options of the base's own class: the saved tokenizer.json already holds what they led to
    for option in ("add_prefix_space", "legacy", "added_tokens_decoder", "add_bos_token", "add_eos_token"):
        config.pop(option, None)
    config["tokenizer_class"] = _PLAIN_CLASS
    if type(base).__name__ not in _PLAIN_CLASSES:
        # beside a config.json of some models (qwen2), transformers 5 takes the model's class over the one named here,
        # unless code of the folder's own is named too; without trust_remote_code it is never looked for
        config |= {
            "tokenizer_class": "TokenizersBackend",
            "auto_map": {"AutoTokenizer": [None, "plain.TokenizersBackend"]},
        }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (directory / "tokenizer.json").write_text(json.dumps(change.state, ensure_ascii=False), encoding="utf-8")


def _is_exact(base: Any, tokenizer: Any, new: list[str]) -> bool:
    """Whether every word comes back as it went in, with the same text around it as the base brings back."""
    texts = [f"see {word}, the {word}\n{word}" for word in new]
    return _round_trip(tokenizer, texts) == _round_trip(base, texts)


def _round_trip(tokenizer: Any, texts: list[str]) -> list[str]:
    backend = tokenizer.backend_tokenizer
    encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
    decoded: list[str] = backend.decode_batch([encoding.ids for encoding in encodings], skip_special_tokens=False)
    return decoded


def _reached(tokenizer: Any, ids: dict[str, int]) -> set[str]:
    """Words that become their own token, after a space or at the start of a line."""
    reached: set[str] = set()
    for before in (" ", "\n"):
        texts = [f"see{before}{word}" for word in ids]
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        reached.update(word for (word, id_), found in zip(ids.items(), encodings, strict=True) if id_ in found.ids)
    return reached


def _entry(
    word: str, row: int | None, first: int, change: _Change, vocabulary: dict[str, int], reached: set[str]
) -> WordIds:
    if row is None:
        return WordIds(
            word=word, token=word, id=vocabulary[word], row=None, trainable=False, known=True, reachable=True
        )
    return WordIds(
        word=word,
        token=change.tokens[word],
        id=first + row,
        row=row,
        trainable=True,
        known=False,
        reachable=word in reached,
    )


def _with_capitals(words: Sequence[str]) -> list[str]:
    # after all words as they are, so that their ids do not depend on this choice
    return list(dict.fromkeys([*words, *(word[0].upper() + word[1:] for word in words)]))


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
