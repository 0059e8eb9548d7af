"""The plain-text artefacts: the devlog table and the perplexity report. Pure: rows in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from wake2vec.contract.ledger import EvaluationRow, Ledger
from wake2vec.show.facts import RunFacts, ln_v
from wake2vec.show.series import Measured, perplexity

DEVLOG_HEAD = ("step", "train", "val", "Δ", "gap", "Δ to best", "bits/byte", "session", "s/step")
MEANING = """\
nats         mean cross-entropy of a held-out target token, natural logarithm: the loss that training lowers
perplexity   exp(nats): among how many equally likely tokens the model hesitates. Depends on the tokenizer
bits/byte    information the model needs for a byte of the held-out text. Does not depend on the tokenizer: compare
             models, phases and sequence lengths by this figure and by no other
all          every held-out target token
new          targets that are added words; base: targets that the published tokenizer had
English      bits/byte of a text that nobody trains on (Austen, 1817), as the new tokenizer cuts it, over all tokens
English base the same over published tokens alone. At step 0 the published model's figure, to the bit; what it rises by
             is what the body has forgotten. English also holds what new words take from the probability of others
ln V         nats of guessing evenly among all V tokens. A model above this line does worse than guessing
"""


def figure(value: float | None, digits: int = 4, *, sign: bool = False) -> str:
    """A number as a person reads it; an en dash for none, `NaN` and `∞` by their names."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1e7:
        return f"{value:{'+' if sign else ''}.3g}"
    return (
        f"{value:{'+' if sign else ''},.{digits}f}"
        if abs(value) >= 10_000
        else f"{value:{'+' if sign else ''}.{digits}f}"
    )


def devlog_cells(line: Measured) -> tuple[str, ...]:
    """One evaluation in the columns of DEVLOG_HEAD."""
    return (
        str(line.row.step),
        figure(line.train),
        figure(line.row.loss),
        figure(line.change, sign=True),
        figure(line.gap, sign=True),
        "best" if line.is_best else figure(line.to_best, sign=True),
        figure(line.row.bits_per_byte),
        str(line.session),
        figure(line.seconds_per_step, 2),
    )


def devlog(name: str, facts: RunFacts, ledger: Ledger, lines: Sequence[Measured]) -> str:
    """A Markdown page, ready to paste: what ran, and one row for each evaluation."""
    head = [f"# {_one_line(name)}", "", f"{_one_line(facts.model_name)}, at step {ledger.last_step}."]
    if ledger.best is not None:
        head[-1] += f" Best: {figure(ledger.best.loss)} nats at step {ledger.best.step}."
    if (floor := ln_v(facts, ledger)) is not None:
        head[-1] += f" ln V = {figure(floor)}."
    if not lines:
        return "\n".join([*head, "", "No evaluation has landed yet.", ""])
    table = [DEVLOG_HEAD, *(devlog_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in table) for column in range(len(DEVLOG_HEAD))]
    text = [
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    text.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    notes = [f"- step {row.step}: {row.event}: {_one_line(row.text)}" for row in ledger.events if row.event != "resume"]
    explained = "train: mean over the tokens of the steps since the row above. Losses in nats per token."
    return "\n".join([*head, "", *text, "", explained, *(["", *notes] if notes else []), ""])


def perplexity_report(name: str, facts: RunFacts, ledger: Ledger) -> str:
    """Before, best and last evaluation side by side, with what each figure means."""
    lines = [f"{_one_line(name)}: {_one_line(facts.model_name)}", ""]
    if not ledger.evaluations:
        return "\n".join([*lines, "No evaluation has landed yet.", "", MEANING])
    first, best, last = ledger.evaluations[0], ledger.best, ledger.evaluations[-1]
    columns = [("before" if first.step == 0 else "first", first), ("best", best), ("last", last)]
    lines.append(_cells("", *(f"{title} (step {row.step})" if row else f"{title} (none)" for title, row in columns)))
    for label, pick in _FIGURES:
        digits = 1 if "perplexity" in label else 4
        lines.append(_cells(label, *(figure(pick(row), digits) if row else "–" for _, row in columns)))
    if (floor := ln_v(facts, ledger)) is not None:
        lines += ["", _cells("ln V", figure(floor)), _cells("last, against ln V", figure(last.loss - floor, sign=True))]
    lines += ["", *_on_what(facts, last), "", MEANING]
    return "\n".join(lines)


def _exp(nats: float | None) -> float | None:
    return None if nats is None else perplexity(nats)


_FIGURES = (
    ("all, nats", lambda row: row.loss),
    ("all, perplexity", lambda row: _exp(row.loss)),
    ("all, bits/byte", lambda row: row.bits_per_byte),
    ("new, nats", lambda row: row.new_loss),
    ("new, perplexity", lambda row: _exp(row.new_loss)),
    ("base, nats", lambda row: row.base_loss),
    ("base, perplexity", lambda row: _exp(row.base_loss)),
    ("English, bits/byte", lambda row: row.english_bits_per_byte),
    ("English base", lambda row: row.english_base_bits_per_byte),
)


def _on_what(facts: RunFacts, last: EvaluationRow) -> list[str]:
    parts = [f"measured on {last.tokens:,} held-out target tokens"]
    if last.new_tokens is not None and last.base_tokens is not None:
        parts.append(f"{last.new_tokens:,} new and {last.base_tokens:,} base")
    if last.bytes is not None:
        is_part = facts.held_out_bytes is not None and last.bytes < facts.held_out_bytes  # max_windows
        of = f" of the {facts.held_out_bytes:,} held out" if is_part else ""
        parts.append(f"{last.bytes:,} bytes of text{of}")
    if facts.first_new_id is not None:
        parts.append(f"V = {facts.first_new_id + facts.n_new:,}, of which {facts.n_new:,} are new")
    return [", ".join(parts[:2]) + "".join(f"; {part}" for part in parts[2:])]


def _cells(label: str, *values: str) -> str:
    return f"{label:<20}" + "".join(f"{value:>22}" for value in values)


def _one_line(text: str) -> str:
    return " ".join(text.split())
