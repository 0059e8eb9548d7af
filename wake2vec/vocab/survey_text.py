"""A survey as figures and bars for a terminal, or for a file: nothing but characters. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from wake2vec.contract.files import counted
from wake2vec.contract.words.forms import about_apostrophes
from wake2vec.vocab.occurrences import Occurrences
from wake2vec.vocab.survey import Survey

_SHOWN = 5
_BAR = 40


def as_text(found: Survey) -> str:
    kinds = {"known already": found.known, "new": found.reachable, "new, out of reach": len(found.unreachable)}
    means = {"before": found.tokens_per_word_before, "after": found.tokens_per_word_after}
    pieces = _grouped(found.pieces)
    lines = [
        f"{found.lexicon} for {found.model}",
        "",
        *bars(counted(found.words, "word"), {name: (count, f"{count:,}") for name, count in kinds.items()}),
        "",
        *bars("tokens per word", {name: (mean, f"{mean:.2f}") for name, mean in means.items()}),
        "",
        *bars("words by their tokens now", {name: (count, f"{count:,}") for name, count in pieces.items()}),
        "",
        f"new ids: {found.first_new_id:,} to {found.tokenizer_size - 1:,}"
        + (f", {found.forms:,} of them for forms of words" if found.forms else ""),
        "cut into most: " + ", ".join(f"{one.word} ({one.tokens})" for one in found.longest[:_SHOWN]),
    ]
    if found.unreachable:
        lines.append("out of reach: " + ", ".join(found.unreachable[:_SHOWN]))
    if (gain := found.corpus) is not None:
        counts = {"before": gain.tokens_before, "after": gain.tokens_after}
        change = gain.tokens_after / gain.tokens_before - 1
        lines += [
            "",
            *bars(f"tokens of the text, {change:+.1%}", {name: (one, f"{one:,}") for name, one in counts.items()}),
            "",
            f"tokens per character: {gain.tokens_per_character_before:.3f} before, "
            f"{gain.tokens_per_character_after:.3f} after",
            *places_chart(gain.places),
            *([gain.line_breaks] if gain.line_breaks else []),
            f"never in the text: {counted(gain.words_absent, 'word')}" + _examples(gain.absent),
            *about_apostrophes(Counter(gain.other_apostrophes)),
            "in the text, perhaps missing: "
            + (", ".join(f"{one.word} ({counted(one.count, 'time')})" for one in gain.suggested[:_SHOWN]) or "none"),
        ]
    return "\n".join(lines)


def places_chart(places: Occurrences) -> list[str]:
    """Where new words stand, form by form, and how many of these places are one token."""
    share = (places.met / places.occurrences) if places.occurrences else 0.0
    rows = {
        str(form): (float(one.occurrences), f"{one.occurrences:,}, {one.met:,} met")
        for form, one in places.by_form.items()
    }
    every, present = counted(places.occurrences, "place"), counted(places.types_present, "new word")
    lines = [
        "",
        *bars(f"{every} of new words, {places.met:,} of them their token ({share:.0%})", rows),
        "",
        f"present in the text: {present}, {places.types_never_met:,} of them never as their token"
        + _examples(places.never_met),
    ]
    base = sum(one.base for one in places.by_form.values())
    wins = f"{counted(base, 'place')}, {counted(places.base_wins, 'word')} in all of theirs"
    return [*lines, f"read as one published token: {wins}"]


def bars(title: str, rows: Mapping[str, tuple[float, str]]) -> list[str]:
    """A bar for each row, the longest of them _BAR characters long; what is not nothing shows."""
    most = max(value for value, _ in rows.values()) or 1
    names, figures = max(map(len, rows)), max(len(figure) for _, figure in rows.values())
    lines = [title]
    for name, (value, figure) in rows.items():
        eighths = max(round(8 * _BAR * value / most), int(value > 0))
        bar = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
        lines.append(f"  {name:<{names}}  {figure:>{figures}}  {bar}".rstrip())
    return lines


def _grouped(pieces: Mapping[int, int]) -> dict[str, int]:
    """Words by their number of tokens, all beyond the seventh together."""
    found = {str(tokens): pieces.get(tokens, 0) for tokens in range(1, 8)}
    return found | {"8 and more": sum(count for tokens, count in pieces.items() if tokens >= 8)}


def _examples(words: Sequence[str]) -> str:
    more = ", …" if len(words) > _SHOWN else ""
    return f" ({', '.join(words[:_SHOWN])}{more})" if words else ""
