"""Build HTML from Python calls; every text is escaped unless it was built here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

_VOID = frozenset({"br", "img", "meta", "line", "circle", "rect", "path", "polyline"})
# controls are not allowed in HTML, and those of direction could make a name read as another
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def el(tag: str, *children: Child, **attributes: object) -> Html:
    """One element. `class_` is class, other underscores are hyphens; an attribute of None or False is left out."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{plain(str(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID and not children:
        return Html(f"<{tag}{shown}/>")
    return Html(f"<{tag}{shown}>{join(children)}</{tag}>")


def join(children: Child) -> Html:
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, (str, int, float)):
        return plain(str(children))
    return Html("".join(join(child) for child in children))


def plain(text: str) -> Html:
    """Text as text, whatever it holds; characters that cannot be shown become U+FFFD."""
    return Html(escape(_CONTROLS.sub("\ufffd", text), quote=True))


def table(head: Sequence[str], rows: Iterable[Sequence[Child]], *, class_: str | None = None) -> Html:
    """A table that scrolls by itself where it is wider than the page. A column of figures stands right.

    Columns without one figure or word are left out.
    """
    cells = [tuple(row) for row in rows]
    shown = [place for place in range(len(head)) if any(row[place] not in ("–", "", None) for row in cells)]
    head, cells = [head[place] for place in shown], [tuple(row[place] for place in shown) for row in cells]
    if not shown:
        return Html("")
    looks = [_look([row[place] for row in cells]) for place in range(len(head))]
    names = [el("th", name, scope="col", class_=look) for name, look in zip(head, looks, strict=True)]
    body = [el("tr", [el("td", cell, class_=look) for cell, look in zip(row, looks, strict=True)]) for row in cells]
    parts = el("thead", el("tr", names)) if any(head) else None, el("tbody", body)
    return el(
        "div", el("table", *parts, class_=class_), class_="wide tall" if len(cells) > 30 else "wide", tabindex="0"
    )


def _look(column: Sequence[Child]) -> str | None:
    """n: figures, set right. s: short words, kept on one line."""
    if all(_is_figure(cell) for cell in column):
        return "n"
    return "s" if all(isinstance(cell, str) and len(cell) <= 24 for cell in column) else None


def _is_figure(cell: Child) -> bool:
    if isinstance(cell, str):
        return re.fullmatch(r"[-+–∞]?[\d,.]*(e[-+]?\d+)?( ?(%|h|s|min))?(NaN)?(best)?", cell) is not None
    return isinstance(cell, (int, float))
