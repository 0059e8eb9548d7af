"""Whether a word list says anything about a text, counted before a job is queued; and what a list that does not is."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from wake2vec.contract.errors import Fault
from wake2vec.contract.files import counted, read_utf8
from wake2vec.contract.tables import DataTable, VocabTable
from wake2vec.contract.words.forms import (
    MOST_IN_PIECES,
    OWN_IDS,
    Finder,
    Form,
    about_apostrophes,
    other_apostrophes,
    spelt,
)

COUNTED = 16 << 20  # characters of the text in which places are counted
_RUN = re.compile(r"\w+")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LOOKED_AT = 1000  # words, for what a list seems to be


def words_not_met(
    vocab: VocabTable, data: DataTable, words: Sequence[str], corpora: Sequence[Path], kind: str = "words"
) -> Fault | None:
    """A fault where no word of the list stands in the text; any that does is enough to train."""
    if data.lexicon_in_corpus or any_met(words, corpora, vocab):
        return None
    hint = seems(words) or _nearly(words, corpora)
    listed = ", ".join(words[:3]) + (" …" if len(words) > 3 else "")
    problem = f"0 of {len(words):,} {kind} ({listed}) stand in the text, so nothing would train"
    return Fault(key="vocab.lexicon", problem=f"{problem}; {hint or 'is it the word list of another text?'}")


def nothing_new(
    vocab: VocabTable, data: DataTable, words: Sequence[str], corpora: Sequence[Path], published: Container[str]
) -> Fault | None:
    """A fault where the model has a token for each word of the list, or for each that stands in the text."""
    capitals = (Form.SPACED, Form.SPACED_CAPITALISED) if vocab.case == "also-capitalised" else (Form.SPACED,)
    new = [word for word in words if any(spelt(word, form) not in published for form in capitals)]
    if not new:
        listed = ", ".join(words[:3]) + (" …" if len(words) > 3 else "")
        problem = (
            f"the model has a token for {'each' if len(words) > 1 else 'all'} of its {counted(len(words), 'word')}"
        )
        return Fault(key="vocab.lexicon", problem=f"{problem} already ({listed}); list words that are new to it")
    return (
        words_not_met(vocab, data, new, corpora, "words that are new to the model") if len(new) < len(words) else None
    )


def places_in_pieces(
    vocab: VocabTable, data: DataTable, words: Sequence[str], corpora: Sequence[Path], published: Container[str]
) -> list[str]:
    """A remark where many places of the words are not spelt as their tokens are, judged by the text alone.

    `published` are the strings of the model's vocabulary, as far as they can be read before it is loaded.
    """
    if vocab.match == "anywhere":
        return []
    finder, joined = Finder(words), data.line_breaks != "keep"
    whole, pieces, at_lines = 0, Counter[Form](), 0
    for part in beginning(corpora):
        for place in finder.find(part):
            spelling, before = part[place.start : place.end], part[max(0, place.start - 2) : place.start]
            token = (spelling,) if place.form.startswith("bare") else (f"Ġ{spelling}", f"▁{spelling}")
            if words[place.word] in published:
                continue
            in_line = len(before) == 2 and before[1] == "\n" != before[0]
            is_token = place.form is Form.SPACED or (joined and in_line) or any(one in published for one in token)
            if is_token or (vocab.forms != "one" and place.form is not Form.OTHER):
                whole += 1
            else:
                pieces[place.form] += 1
                at_lines += in_line
    return _told(pieces, whole, at_lines)


def _told(pieces: Counter[Form], whole: int, at_lines: int) -> list[str]:
    broken, every = pieces.total(), pieces.total() + whole
    if broken <= MOST_IN_PIECES * every:
        return []
    remedies = ['vocab.forms = "shared" gives these an id'] if broken > pieces[Form.OTHER] + at_lines else []
    remedies += ['data.line_breaks = "join" joins lines of print'] if at_lines > MOST_IN_PIECES * every else []
    listed = ", ".join(f"{form} {count:,}" for form, count in pieces.most_common())
    remark = f"{broken:,} of {every:,} places of its words are read in pieces and teach nothing ({listed})"
    return [f"{remark}; {', '.join(remedies) or '`lexicon` shows them'}"]


def about_forms(vocab: VocabTable, words: Sequence[str], corpora: Sequence[Path]) -> list[str]:
    """What ids for forms come to: how many rows, and which words of the list have none of their own to give."""
    if vocab.forms == "one":
        return []
    ids, spellings = new_ids(vocab, words, corpora), set(words)
    rows = ids if vocab.forms == "separate" else len(words)
    told = [f"its {len(words):,} words get up to {ids:,} ids with their forms, and {rows:,} rows to train"]
    listed = sum(
        any((other := spelt(word, form)) != word and other in spellings for form in OWN_IDS[2::2]) for word in words
    )
    if listed:
        told.append(f"{listed:,} of its words are listed in other capitals too: each spelling is a word of its own")
    caseless = sum(word.lower() == word.upper() for word in words)
    if caseless:
        told.append(f"{caseless:,} of its words are in a script without capitals: they have no form but the bare one")
    return told


def new_ids(vocab: VocabTable, words: Sequence[str], corpora: Sequence[Path]) -> int:
    """The most that a job adds: its words, and their forms that stand in the text."""
    finder, found = Finder(words), set[tuple[int, Form]]()
    for part in beginning(corpora) if vocab.forms != "one" else ():
        found.update((place.word, place.form) for place in finder.find(part) if place.form in OWN_IDS[1:])
    return len(words) + len(found)


def any_met(words: Sequence[str], corpora: Sequence[Path], vocab: VocabTable) -> bool:
    kinds = OWN_IDS if vocab.forms != "one" else OWN_IDS[:3] if vocab.case == "also-capitalised" else OWN_IDS[:1]
    forms = {spelt(word, form) for word in words for form in kinds}
    # A word of letters alone is looked up; one with marks in it, or that may stand inside others, is searched for.
    plain = {word for word in forms if _RUN.fullmatch(word) and vocab.match == "word"}
    others = [re.escape(word) for word in sorted(forms - plain)]
    pattern = "|".join(others) if vocab.match == "anywhere" else rf"(?<!\w)(?:{'|'.join(others)})(?!\w)"
    search = re.compile(pattern) if others else None
    return any(not plain.isdisjoint(_RUN.findall(part)) or (search and search.search(part)) for part in parts(corpora))


def with_other_apostrophe(words: Sequence[str], corpora: Sequence[Path]) -> list[str]:
    return about_apostrophes(other_apostrophes(words, beginning(corpora)))


def beginning(corpora: Iterable[Path]) -> Iterator[str]:
    """Of the texts, as much as is counted."""
    read = 0
    for part in parts(corpora):
        yield part
        if (read := read + len(part)) >= COUNTED:
            return


def parts(corpora: Iterable[Path]) -> Iterator[str]:
    """The texts in pieces that end at a blank, NFC as the words are."""
    for path in corpora:
        rest = ""
        for _, piece in read_utf8(path):
            text = rest + piece
            cut = max(text.rfind(" "), text.rfind("\n")) + 1
            yield unicodedata.normalize("NFC", text[:cut])
            rest = text[cut:]
        yield unicodedata.normalize("NFC", rest)


def seems(words: Sequence[str]) -> str:
    """What a list of words seems to be instead, by most of its first lines; empty where it looks like one."""
    seen = words[:_LOOKED_AT]
    for mark, name in _SEPARATORS.items():
        if 2 * sum(mark in word.strip(mark) for word in seen) >= len(seen):
            cut = "" if mark == "\t" else f" -d'{mark}'"
            return f"its lines have {name} in them, as a CSV has: keep the words alone, for example cut{cut} -f1"
    quoted = sum(word.strip(",[]{}")[:1] in ("'", '"') for word in seen)
    if words[0][0] in "[{" or 2 * quoted >= len(seen):
        return "it looks like JSON or a list of a program: write one bare word on each line"
    if 2 * sum(word[0] in "-*•#<" for word in seen) >= len(seen):
        return "its lines begin with marks of a list or of markup: write one bare word on each line"
    return ""


def _nearly(words: Sequence[str], corpora: Sequence[Path]) -> str:
    """Other apostrophes, other capitals, no spaces, or another script."""
    if apart := with_other_apostrophe(words, corpora):
        return apart[0]
    folded = {word.casefold() for word in words}
    found: set[str] = set()
    letters, first = Counter[str](), ""
    for part in parts(corpora):
        runs = _RUN.findall(part)
        found |= folded.intersection(run.casefold() for run in runs)
        if part and not first:
            letters, first = _scripts(runs[:_LOOKED_AT]), part
    if found:
        return f"{len(found):,} of them stand there in other capitals: write the list as the text does"
    if inside := sum(word.lower() == word.upper() and word in first for word in words[:_LOOKED_AT]):
        remedy = 'where no spaces part words, match = "anywhere" finds them'
        return f"{inside:,} of them stand there inside longer runs of letters: {remedy}"
    mine = _scripts(words[:_LOOKED_AT])
    here, there = (most.most_common(1)[0][0] if most else "" for most in (mine, letters))
    return f"its words are {here}, the text is {there}: another language?" if here and there and here != there else ""


def _scripts(words: Iterable[str]) -> Counter[str]:
    names = (unicodedata.name(letter, "").partition(" ")[0] for word in words for letter in word if letter.isalpha())
    return Counter(name.capitalize() for name in names if name)
