"""Ways of teaching a model new words, each at its best: `python -m bench.trials quality`.

Every contender has eight exploratory runs, four rates in two variants, and is entered with the one that has the fewest
bits on validation text. It is reported on other text, with three seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.trials.study import (
    Found,
    Scale,
    against,
    best,
    between,
    figures,
    grid,
    number,
    outcomes,
    seeded,
)
from bench.trials.trial import Trial

LAB = "untied"  # whose figures the file of this name holds
ADAM = (3e-4, 1e-3, 3e-3, 1e-2)
FACTOR = (2e-3, 5e-3, 1e-2, 2e-2)
ADAPTERS = (3e-4, 1e-3, 3e-3, 1e-2)
SEPARATE: dict[str, Any] = {"rows": "separate", "output": "first_piece", "calibrate": True}
OURS = "ours, separate rows, calibrated"
CONTENDERS: dict[str, list[dict[str, Any]]] = {
    OURS: grid(SEPARATE, lr=FACTOR, optimizer=["adafactor", "adamw"]),
    "ours, rows as the model ties them": grid({}, lr=FACTOR, calibrate=[False, True]),
    "ours, every row every step": grid({"update": "all"}, lr=FACTOR, calibrate=[False, True]),
    "PEFT trainable tokens": grid({"way": "peft", "optimizer": "adamw"}, lr=ADAM, init=["mean", "subwords"]),
    "full matrix, masked": grid({"way": "masked", "optimizer": "adamw"}, lr=ADAM, init=["mean", "subwords"]),
    "original overlay": grid(
        {"way": "overlay", "init": "spherical", "scale": 1.5, "rows": "input"},
        lr=(5e-4, 5e-3, 2e-2, 5e-2),
        match=["anywhere", "word"],
    ),
    "LoRA, no new words": grid({"way": "lora", "match": "none"}, lr=ADAPTERS, rank=[8, 32]),
    "ours with LoRA beside": grid({**SEPARATE, "way": "lora", "beside": True}, lr=ADAPTERS, rank=[8, 32]),
}
UNTOUCHED = "untouched model"
SHORT = 3  # a table at a third of the steps too


def plan(found: Found, scale: Scale) -> list[Trial]:
    final = [
        trial
        for name in CONTENDERS
        if (chosen := best(found, variants(name, scale), scale)) is not None
        for of in lengths(scale)
        for trial in seeded(replace(chosen, steps=of))
    ]
    exploring = [scale.explored(one) for name in CONTENDERS for one in variants(name, scale)]
    return [scale.untouched(), *final, *exploring]


def lengths(scale: Scale) -> tuple[int, int]:
    return scale.steps, max(1, scale.steps // SHORT)


def variants(name: str, scale: Scale) -> list[Trial]:
    return [scale.trial(**choice) for choice in CONTENDERS[name]]


def summary(found: Found, scale: Scale) -> dict[str, Any] | None:
    tables = {f"rows_{steps}": rows(found, scale, steps) for steps in lengths(scale)}
    if any(table is None for table in tables.values()):
        return None
    return {"rows": tables[f"rows_{scale.steps}"], "rows_short": tables[f"rows_{lengths(scale)[1]}"]}


def rows(found: Found, scale: Scale, steps: int) -> list[dict[str, Any]] | None:
    untouched = found.get(scale.untouched().key)
    chosen = {name: best(found, variants(name, scale), scale) for name in CONTENDERS}
    if untouched is None or None in chosen.values():
        return None
    runs = {name: outcomes(found, seeded(replace(one, steps=steps))) for name, one in chosen.items() if one}
    ours = runs[OURS]
    if ours is None or any(those is None for those in runs.values()):
        return None
    table = []
    for name, those in runs.items():
        one = chosen[name]
        assert one is not None
        assert those is not None
        rates = sorted({variant.lr for variant in variants(name, scale)})
        about = {
            "contender": name,
            "seeds": [trial.seed for trial in seeded(one)],
            "rates_tried": rates,
            "exploratory_runs": len(variants(name, scale)),
            "rate": one.lr,
            "rate_at_an_end": one.lr in (rates[0], rates[-1]),
            "chosen": dict(CONTENDERS[name][variants(name, scale).index(one)]),
            "trained": steps,
            "new_ids": those[0]["new_ids"],
        }
        table.append(about | figures(those, untouched) | against(those, ours))
    alone = {"contender": UNTOUCHED, "seeds": [], "rates_tried": [], "trained": 0, "exploratory_runs": 0}
    return [alone | figures([untouched], untouched) | against([untouched], ours), *table]


def table(result: Mapping[str, Any], part: str = "") -> list[dict[str, str]]:
    return [_line(row) for row in result["rows_short" if part == "short" else "rows"]]


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    never, seldom, often = row["bits_per_byte_by_met"]
    rate = f"{row['rate']:g}{' (at an end)' if row['rate_at_an_end'] else ''}" if row["rates_tried"] else "–"
    return {
        "contender": f"**{row['contender']}**" if row["contender"] == OURS else row["contender"],
        "rate": rate,
        "all": _pair(row["bits_per_byte_all"]),
        "new words": _pair(row["bits_per_byte_new"]),
        "never / 1–3 / often met": " / ".join(number(one, 2) for one in (never, seldom, often)),
        "other text": _pair(row["bits_per_byte_other"]),
        "English": number(row["english"]),
        "English base": number(row["english_base"]),
        "all, less ours": "–" if row["contender"] == OURS else between(row["interval"]),
        "new words, less ours": "–" if row["contender"] == OURS else between(row["interval_new"]),
    }


def _pair(values: list[float | None]) -> str:
    before, after = values
    return number(after) if before is None else f"{number(before)} → {number(after)}"


def plot(result: Mapping[str, Any], path: Path) -> None:
    """What each contender has more than ours, in all text, with its interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [row for row in result["rows"] if row["contender"] != OURS and row["interval"][1] < 1]
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.5 * len(shown) + 1.5), layout="constrained", sharey=True)
    for axis, name, what in zip(axes, ("interval", "interval_new"), ("all text", "new words"), strict=True):
        for place, row in enumerate(reversed(shown)):
            low, high = row[name]
            axis.plot([low, high], [place, place], linewidth=5, solid_capstyle="butt")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_xlabel(f"bits per byte more than ours, {what}: 95 %")
    axes[0].set_yticks(range(len(shown)), [row["contender"] for row in reversed(shown)])
    figure.savefig(path, dpi=110)
    plt.close(figure)
