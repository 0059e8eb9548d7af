"""What a tokenizer knows of a lexicon, and what the lexicon would do for a corpus."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import ModelError, first_line
from wake2vec.contract.options import SurveyOptions
from wake2vec.contract.words.forms import Form, other_apostrophes
from wake2vec.contract.words.lexicon import Lexicon, read_lexicon
from wake2vec.data.corpus import Corpus, open_corpus
from wake2vec.data.lines import Hyphens, LineBreaks, Print, as_printed, stretches
from wake2vec.data.tokens import pieces
from wake2vec.vocab.idmap import Case, IdMap, Match
from wake2vec.vocab.inject import inject, load_tokenizer
from wake2vec.vocab.occurrences import Occurrences, count, forms_in

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_LISTED = 20
_SUGGESTED_LEAST = 3


@dataclass(frozen=True, kw_only=True)
class Fragmented:
    """A word and how many tokens the base tokenizer cuts it into, with the space before it."""

    word: str
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Suggested:
    """A word of the corpus that is not in the lexicon: how often it occurs, and its base tokens each time."""

    word: str
    count: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What the new words do for a corpus."""

    characters: int
    tokens_before: int
    tokens_after: int
    line_breaks: str  # what became of them; nothing where they stay
    places: Occurrences
    words_absent: int
    absent: tuple[str, ...]
    other_apostrophes: dict[str, int]  # spellings of the text that the list has with the other one, and how often
    suggested: tuple[Suggested, ...]

    @property
    def tokens_per_character_before(self) -> float:
        return self.tokens_before / self.characters

    @property
    def tokens_per_character_after(self) -> float:
        return self.tokens_after / self.characters


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The lexicon report. `pieces` counts words by the number of base tokens that they are cut into."""

    lexicon: str
    model: str
    words: int
    known: int
    new: int
    forms: int  # ids beside those of the new words
    reachable: int
    unreachable: tuple[str, ...]
    first_new_id: int
    tokenizer_size: int
    scheme: str
    tokens_per_word_before: float
    tokens_per_word_after: float
    pieces: dict[int, int]
    longest: tuple[Fragmented, ...]
    blank_lines: tuple[int, ...]
    duplicate_lines: tuple[int, ...]
    corpus: Gain | None


def survey(
    lexicon: Lexicon,
    base: Any,
    *,
    model: str,
    corpus: Corpus | None,
    match: Match = "word",
    case: Case = "as-is",
    forms: bool = False,
    line_breaks: LineBreaks = "keep",
    hyphens: Hyphens = "keep",
) -> Survey:
    """Inject the lexicon into a throw-away copy of a tokenizer and count. Raises InputError as injection does."""
    lines = None if corpus is None else as_printed(corpus, line_breaks, hyphens)
    needed = forms_in(stretches(corpus, lines), lexicon.words) if corpus and forms else frozenset[tuple[str, Form]]()
    with tempfile.TemporaryDirectory() as scratch:
        injection = inject(
            base, lexicon.words, directory=Path(scratch) / "tokenizer", match=match, case=case, forms=needed
        )
    id_map, tokenizer = injection.id_map, injection.tokenizer
    words = [entry.word for entry in id_map.entries]
    before = [len(ids) for ids in pieces(words, base)]
    after = [len(ids) for ids in pieces(words, tokenizer)]
    unreachable = tuple(entry.word for entry in id_map.new if not entry.reachable)
    return Survey(
        lexicon=str(lexicon.path),
        model=model,
        words=len(words),
        known=len(id_map.known),
        new=len(id_map.new),
        forms=len(id_map.forms),
        reachable=len(id_map.new) - len(unreachable),
        unreachable=unreachable,
        first_new_id=id_map.first_new_id,
        tokenizer_size=id_map.n_ids,
        scheme=id_map.scheme,
        tokens_per_word_before=sum(before) / len(before),
        tokens_per_word_after=sum(after) / len(after),
        pieces=dict(sorted(Counter(before).items())),
        longest=_longest(words, before),
        blank_lines=lexicon.blanks,
        duplicate_lines=lexicon.duplicates,
        corpus=None if corpus is None else _gain(corpus, lines, base, tokenizer, id_map),
    )


def _longest(words: Sequence[str], tokens: Sequence[int]) -> tuple[Fragmented, ...]:
    ordered = sorted(zip(words, tokens, strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Fragmented(word=word, tokens=count) for word, count in ordered[:_LISTED])


def _gain(corpus: Corpus, lines: Print | None, base: Any, tokenizer: Any, id_map: IdMap) -> Gain:
    before, after, met = 0, 0, Counter[int]()
    seen = Counter[str]()
    for text in stretches(corpus, lines):
        ids = _ids(tokenizer, text)
        before += len(_ids(base, text))
        after += len(ids)
        met.update(id_ for id_ in ids if id_ >= id_map.first_new_id)
        seen.update(_WORD.findall(text))
    words = {entry.word for entry in id_map.entries}
    absent = tuple(entry.word for entry in id_map.entries if not seen[entry.word] and not met[entry.id])
    return Gain(
        characters=corpus.characters,
        tokens_before=before,
        tokens_after=after,
        line_breaks=lines.told() if lines else "",
        places=count(stretches(corpus, lines), tokenizer, id_map),
        words_absent=len(absent),
        absent=absent[:_LISTED],
        other_apostrophes=dict(other_apostrophes([entry.word for entry in id_map.entries], stretches(corpus, lines))),
        suggested=_suggested(seen, words, base),
    )


def _suggested(seen: Counter[str], words: set[str], base: Any) -> tuple[Suggested, ...]:
    """Words that would save most tokens: frequent, cut into many, and neither in the lexicon nor a capitalised form."""
    lower = {word.lower() for word in words}
    candidates = [word for word, count in seen.items() if count >= _SUGGESTED_LEAST and word.lower() not in lower]
    if not candidates:
        return ()
    tokens = dict(zip(candidates, (len(ids) for ids in pieces(candidates, base)), strict=True))
    ordered = sorted(candidates, key=lambda word: (-(tokens[word] - 1) * seen[word], word))
    return tuple(
        Suggested(word=word, count=seen[word], tokens=tokens[word]) for word in ordered[:_LISTED] if tokens[word] > 1
    )


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def as_json(found: Survey) -> str:
    """All figures, with the compression of the corpus worked out."""
    data = asdict(found)
    if found.corpus is not None:
        data["corpus"]["tokens_per_character_before"] = found.corpus.tokens_per_character_before
        data["corpus"]["tokens_per_character_after"] = found.corpus.tokens_per_character_after
        places = found.corpus.places.as_json()
        del data["corpus"]["places"]
        data["corpus"] |= places
        data |= places
    return json.dumps(data, ensure_ascii=False, indent=2)


def load_base(model: str) -> Any:
    """The fast tokenizer of a folder or a hub id. Raises ModelError when there is none."""
    try:
        return load_tokenizer(Path(model)) if Path(model).exists() else load_tokenizer_of_hub(model)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        problem = f"its tokenizer cannot be loaded: {first_line(exc)}"
        raise ModelError(model, problem, "check the name and the network") from exc


def load_tokenizer_of_hub(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def run(options: SurveyOptions) -> None:
    found = survey(
        read_lexicon(options.lexicon),
        load_base(options.model),
        model=options.model,
        corpus=open_corpus(options.corpora) if options.corpora else None,
        match=options.match,
        case=options.case,
        forms=options.forms != "one",
        line_breaks=options.line_breaks,
        hyphens=options.hyphens,
    )
    from wake2vec.vocab.survey_text import as_text

    print(as_json(found) if options.as_json else as_text(found))
