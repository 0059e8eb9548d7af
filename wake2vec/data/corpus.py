"""Read the text that a job trains on.

The text is used as it is, but for three things that are not text: a byte order mark is dropped, CRLF and CR become LF,
and several files are joined by one line break. No Unicode normalisation: a tokenizer that wants NFC does it itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_utf8


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One or more text files seen as one text that is never held in memory as a whole.

    `appended` is text beside the files that is trained on and never held out: the lexicon, where a job asks for it.
    Sizes are those of the files' text.
    """

    paths: tuple[Path, ...]
    characters: int
    bytes: int
    sha256: str
    appended: str = ""

    def pieces(self) -> Iterator[str]:
        """The files' text from its start, in pieces of about a megabyte."""
        yield from _pieces(self.paths)

    def text(self) -> str:
        """The files' whole text at once."""
        return "".join(self.pieces())


def open_corpus(paths: Sequence[Path], *, lexicon: Sequence[str] = ()) -> Corpus:
    """Check the files and measure the text; `lexicon` words are trained on too, one a line.

    Raises InputError naming the file, and for a byte that is not UTF-8 its offset.
    """
    if not paths:
        raise InputError("corpus", "no text file is named", "give at least one file")
    digest, characters, size, blank = hashlib.sha256(), 0, 0, True
    for piece in _pieces(tuple(paths)):
        encoded = piece.encode()
        digest.update(encoded)
        characters += len(piece)
        size += len(encoded)
        blank = blank and not piece.strip()
    if blank:
        raise InputError(", ".join(map(str, paths)), "the text is empty", "name a file that has text in it")
    appended = _as_text(lexicon)
    digest.update(b"\0" + appended.encode())
    return Corpus(paths=tuple(paths), characters=characters, bytes=size, sha256=digest.hexdigest(), appended=appended)


def _as_text(lexicon: Sequence[str]) -> str:
    # a space before each word: the token of a new word holds the space, so at a bare line start it would not be met
    return "".join(f"\n {word}" for word in lexicon)


def _pieces(paths: tuple[Path, ...]) -> Iterator[str]:
    ended_with_break = True
    for path in paths:
        if not ended_with_break:
            yield "\n"
        for piece in _read(path):
            ended_with_break = piece.endswith("\n")
            yield piece


def _read(path: Path) -> Iterator[str]:
    newlines, mark = _Newlines(), "\ufeff"
    try:
        for _, text in read_utf8(path):
            yield from newlines.feed(text.removeprefix(mark))
            mark = "" if text else mark
        yield from newlines.feed("", final=True)
    except OSError as exc:
        raise InputError(path, exc.strerror or str(exc), "name a text file that can be read") from exc


class _Newlines:
    """Turn CRLF and CR into LF across the seams of pieces."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, text: str, final: bool = False) -> Iterator[str]:
        if self._after_cr:
            text = "\r" + text
        self._after_cr = text.endswith("\r") and not final
        if self._after_cr:
            text = text[:-1]
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text:
            yield text
