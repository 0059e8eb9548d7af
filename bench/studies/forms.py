"""Forms of words and lines of print, side by side on one model and text: `python -m bench.trials forms`.

One id for a word (after a space alone), forms that share a row, and forms with rows of their own; on the text as it is,
and on the same text in lines of print, kept or joined. Every trial takes the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.trials.held_out import PARTS, interval
from bench.trials.study import Found, Scale, between, figures, number, outcomes, reported, seeded
from bench.trials.trial import Trial
from wake2vec.contract.words.forms import Form

LAB = "smollm2"  # whose figures the file of this name holds
KINDS = ("one", "shared", "separate")
ROWS: dict[str, dict[str, Any]] = {
    "shared rows": {},
    "separate rows, calibrated": {"rows": "separate", "output": "first_piece", "calibrate": True},
}


def contenders(scale: Scale) -> dict[tuple[str, str, str, str], Trial]:
    """By text, rows, forms and lines."""
    printed = f"{scale.lab}-printed"
    found = {}
    for rows, more in ROWS.items():
        for forms in KINDS:
            found["as it is", rows, forms, "keep"] = scale.trial(forms=forms, **more)
    for lines in ("keep", "join"):
        for forms in KINDS:
            key = ("in lines of print", "shared rows", forms, lines)
            found[key] = scale.trial(forms=forms, line_breaks=lines, lab=printed)
    return found


def plan(found: Found, scale: Scale) -> list[Trial]:
    del found
    untouched = [scale.untouched(), scale.untouched(f"{scale.lab}-printed")]
    return untouched + [trial for one in contenders(scale).values() for trial in seeded(one)]


def summary(found: Found, scale: Scale) -> dict[str, Any] | None:
    there = {key: outcomes(found, seeded(one)) for key, one in contenders(scale).items()}
    none = {lab: found.get(scale.untouched(lab).key) for lab in (scale.lab, f"{scale.lab}-printed")}
    rows = []
    for (text, kind, forms, lines), runs in there.items():
        first, beside = there[text, kind, "one", "keep"], there.get((text, kind, "one", lines))
        untouched = none[scale.lab if text == "as it is" else f"{scale.lab}-printed"]
        if runs is None or first is None or beside is None or untouched is None:
            continue
        about = {"text": text, "rows": kind, "forms": forms, "line_breaks": lines, "new_ids": runs[0]["new_ids"]}
        about["seeds"] = [trial.seed for trial in seeded(contenders(scale)[text, kind, forms, lines])]
        ours, other = reported(first), reported(runs)
        against = {f"interval_{name}": interval(ours, other, part) for name, part in PARTS.items()}
        against["interval_same_lines"] = interval(reported(beside), other, PARTS["all"])
        rows.append(about | figures(runs, untouched) | against | {"by_form": by_form(runs, untouched)})
    return {"rows": rows} if rows else None


def by_form(runs: list[dict[str, Any]], untouched: dict[str, Any]) -> dict[str, list[float | None]]:
    """Of each form: bits of the untouched model and after training."""
    none, after = reported([untouched]), reported(runs)
    return {str(form): [none.bits([1 + place]), after.bits([1 + place])] for place, form in enumerate(Form)}


def table(result: Mapping[str, Any], part: str = "") -> list[dict[str, str]]:
    """`printed`: the text in lines of print; `goal`: what is gained on the untouched model."""
    wanted = "in lines of print" if part == "printed" else "as it is"
    line = _gained if part == "goal" else _line
    return [line(row) for row in result["rows"] if row["text"] == wanted]


def _gained(row: Mapping[str, Any]) -> dict[str, str]:
    line = {"rows": row["rows"], "forms": row["forms"]}
    for name, head in (("all", "all"), ("new", "new words"), ("words", "words in any form"), ("other", "other text")):
        line[head] = f"{row[f'change_{name}_to_untouched']:+.1%}"
    return line | {
        "all, less untouched": between(row["interval_all_to_untouched"]),
        "new words, less untouched": between(row["interval_new_to_untouched"]),
    }


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    first = row["forms"] == "one" and row["line_breaks"] == "keep"
    line = {"rows": row["rows"], "forms": row["forms"], "lines": row["line_breaks"], "new ids": f"{row['new_ids']:,}"}
    if row["text"] == "as it is":
        line.pop("lines")
    for name, head in (
        ("all", "all"),
        ("words", "words in any form"),
        ("new", "after a space"),
        ("other", "other text"),
    ):
        line[head] = number(row[f"bits_per_byte_{name}"][1])
    for form in (Form.BARE, Form.SPACED_CAPITALISED, Form.BARE_CAPITALISED):
        line[str(form)] = number(row["by_form"][str(form)][1])
    line["all, less one form"] = "–" if first else between(row["interval_all"])
    line["words, less one form"] = "–" if first else between(row["interval_words"])
    return line
