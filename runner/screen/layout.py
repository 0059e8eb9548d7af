"""Lay text out on a page of a given width: items side by side, wrapped at words, in ASCII where need be. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from runner import figures

LABEL = 9  # columns of the labels at the left
NARROW = 60  # below this there is no room for them
Item = Text | str | None


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is drawn on."""

    width: int
    ascii_only: bool

    def text(self, words: str, style: str = "") -> Text:
        return Text(figures.plain(words) if self.ascii_only else words, style=style)


def flow(label: str, items: Sequence[Item], page: Page) -> list[Text]:
    """Items side by side, separated by dots, on as many lines as they need, under one label."""
    shown = [page.text(item) if isinstance(item, str) else item for item in items if item is not None]
    if not shown:
        return []
    indent = LABEL if page.width >= NARROW else 2
    dot = page.text(" · ", "dim")
    lines = [Text.assemble(page.text(f"{label:<{LABEL}}" if indent == LABEL else f"{label} ", "dim"))]
    is_first = True
    for item in shown:
        if not is_first and lines[-1].cell_len + dot.cell_len + item.cell_len > page.width:
            lines.append(Text(" " * indent))
            is_first = True
        if not is_first:
            lines[-1].append_text(dot)
        lines[-1].append_text(item)
        is_first = False
    return [part for line in lines for part in wrap(line, page, indent=indent)]


def wrap(line: Text, page: Page, *, indent: int) -> list[Text]:
    """Break a line that is longer than the page at words."""
    if line.cell_len <= page.width:
        return [line]
    words, lines = line.split(" ", include_separator=True), [Text()]
    for word in words:
        if lines[-1].cell_len + len(word.plain.rstrip()) > page.width and lines[-1].plain.strip():
            lines.append(Text(" " * indent))
        lines[-1].append_text(word)
    return [cut(part, page) for part in lines]


def cut(line: Text, page: Page) -> Text:
    line.truncate(page.width, overflow="crop" if page.ascii_only else "ellipsis")
    return line
