"""Read a lexicon: one word a line, UTF-8."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import open_regular

MAX_BYTES = 64 << 20
JOINERS = "\u200c\u200d"
_SHOWN = 5
_LONG = 40  # characters of a line that a message repeats
_SEPARATORS = ",;|"
_COMMENT, _NO_COMMENTS = "#", "a word list has no comments"


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """The words in the order of the file, NFC and stripped, each once.

    `blanks` and `duplicates` are the lines that added nothing, counted from 1.
    """

    path: Path
    words: tuple[str, ...]
    blanks: tuple[int, ...]
    duplicates: tuple[int, ...]

    def remarks(self) -> list[str]:
        """What a person should know about lines that were passed over."""
        found = (("blank", self.blanks), ("duplicate", self.duplicates))
        told = [f"{self.path.name}: {_counted(kind, lines)} passed over" for kind, lines in found if lines]
        for mark in _SEPARATORS:
            if 2 * (count := sum(word.endswith(mark) for word in self.words)) >= len(self.words):
                told.append(f"{self.path.name}: {count:,} of its words end in {mark!r}, which is taken as part of them")
        if marked := sum(word.startswith(_COMMENT) for word in self.words):
            said = f"{marked:,} of its words begin with {_COMMENT!r}, which is taken as part of them"
            told.append(f"{self.path.name}: {said}: {_NO_COMMENTS}")
        return told


def read_lexicon(path: Path) -> Lexicon:
    """Raises InputError naming file and line: not UTF-8, a word with a space or a control character, no word at all."""
    lines = _text(path).removeprefix("\ufeff").split("\n")
    words: dict[str, int] = {}
    blanks, duplicates = [], []
    # the empty string after the last line break is the end of the file, not a line
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        word = unicodedata.normalize("NFC", line.strip())
        if not word:
            blanks.append(number)
        elif word in words:
            duplicates.append(number)
        else:
            words[_checked(word, path, number)] = number
    if not words:
        raise InputError(path, "the lexicon has no words", "write one word on each line")
    return Lexicon(path=path, words=tuple(words), blanks=tuple(blanks), duplicates=tuple(duplicates))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(path, f"larger than {MAX_BYTES >> 20} MiB", "name a list of words, not a text")
        with open_regular(path) as file:
            data = file.read()
    except OSError as exc:
        raise InputError(path, exc.strerror or str(exc), "name a lexicon that can be read") from exc
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        problem = f"line {line}: byte {exc.start} (0x{data[exc.start]:02x}) is not UTF-8"
        raise InputError(path, problem, "save the lexicon as UTF-8") from exc


def _checked(word: str, path: Path, line: int) -> str:
    for place, character in enumerate(word):
        kind = unicodedata.category(character)
        if kind.startswith("Z"):
            remedy = f"{_NO_COMMENTS}: remove it" if word.startswith(_COMMENT) else "write one word on each line"
            raise InputError(path, f"line {line}: {_quoted(word)} has a space in it", remedy)
        # Cf too: a soft hyphen or a zero-width joiner cannot be seen, and makes another word of the same letters
        if kind in ("Cc", "Cf", "Cs") and not _joins(word, place):
            raise InputError(path, f"line {line}: {_quoted(word)} has the control character {character!r}", "remove it")
    return word


def _quoted(word: str) -> str:
    return repr(word if len(word) <= _LONG else f"{word[:_LONG]}…")


def _joins(word: str, place: int) -> bool:
    """Whether it is a joiner between letters of a script that spells with joiners, as Persian and Hindi do."""
    around = word[place - 1 : place] + word[place + 1 : place + 2]
    names = [
        unicodedata.name(letter, "").partition(" ")[0] for letter in around if unicodedata.category(letter)[0] in "LM"
    ]
    return word[place] in JOINERS and len(names) == 2 and not {"LATIN", "GREEK", "CYRILLIC"} & set(names)


def _counted(kind: str, lines: tuple[int, ...]) -> str:
    if len(lines) == 1:
        return f"{kind} line {lines[0]}"
    return f"{len(lines)} {kind} lines ({_listed(lines)})"


def _listed(lines: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, lines[:_SHOWN]))
    return shown + (f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else "")
