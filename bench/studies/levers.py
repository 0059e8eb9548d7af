"""What else might make rows train better, at equal compute: `python -m bench.trials levers`.

Each lever is explored in its own strengths by validation text; the best of each is reported with three seeds, beside
the recipe that all of them start from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.studies.quality import SEPARATE
from bench.trials.study import Found, Scale, against, best, between, figures, grid, number, outcomes, seeded, validation
from bench.trials.trial import FORWARD, Trial

LAB = "untied"  # whose figures the file of this name holds
RECIPE = "the recipe"


def levers(scale: Scale) -> dict[str, list[Trial]]:
    rates, fewer = (2e-3, 5e-3, 1e-2, 2e-2), round(scale.steps * (1 - FORWARD))
    choices: dict[str, list[dict[str, Any]]] = {
        RECIPE: grid(SEPARATE, lr=rates),
        "rate by frequency": grid(SEPARATE, by_frequency=(-0.5, -0.25, 0.25, 0.5)),
        "a pull to the start": grid(SEPARATE, pull=(0.3, 1.0, 3.0, 10.0)),
        "spelling beside": grid(SEPARATE, spelling=(0.03, 0.1, 0.3, 1.0)),
        "text of rare words twice": grid(SEPARATE, rare_twice=(2, 4, 8)),
        "steps of a row's own": grid(SEPARATE, lr=(5e-3, 1e-2), own_steps=(True,)),
        "forms that share a row": grid(SEPARATE, lr=rates, forms=("shared",)),
        "half the batch, twice the steps": grid(
            {**SEPARATE, "steps": 2 * scale.steps, "batch": max(1, scale.batch // 2)}, lr=(2e-3, 5e-3)
        ),
        "output rows by regression, then steps": grid({**SEPARATE, "steps": fewer, "regress": "first"}, prior=PRIORS),
        "steps, then output rows by regression": grid({**SEPARATE, "steps": fewer, "regress": "last"}, prior=PRIORS),
        "shared rows, calibrated": grid({"calibrate": True}, lr=rates),
    }
    return {name: [scale.trial(**one) for one in those] for name, those in choices.items()}


PRIORS = (3.0, 10.0, 30.0, 100.0)


def plan(found: Found, scale: Scale) -> list[Trial]:
    exploring = [scale.explored(one) for those in levers(scale).values() for one in those]
    final = [trial for one in chosen(found, scale).values() for trial in seeded(one)]
    return [scale.untouched(), *final, *exploring]


def chosen(found: Found, scale: Scale) -> dict[str, Trial]:
    """The best of each lever; once all are explored, also regression together with what helped besides."""
    those = {name: one for name, tried in levers(scale).items() if (one := best(found, tried, scale))}
    if len(those) < len(levers(scale)):
        return those
    bits = {name: validation(found[scale.explored(one).key], "all") for name, one in those.items()}
    regressed = min((name for name in those if "regression" in name), key=bits.__getitem__)
    helped = [name for name in FREE if name in bits and bits[name] < bits[RECIPE]]
    both = those[regressed]
    for name in helped:
        both = replace(both, **{field: getattr(those[name], field) for field in FREE[name]})
    return those | ({f"{regressed}, with {' and '.join(helped)}": both} if helped else {})


FREE = {  # levers that can stand beside any other, and their fields
    "rate by frequency": ("by_frequency",),
    "a pull to the start": ("pull",),
    "spelling beside": ("spelling",),
    "text of rare words twice": ("rare_twice",),
}


def summary(found: Found, scale: Scale) -> dict[str, Any] | None:
    untouched, those = found.get(scale.untouched().key), chosen(found, scale)
    runs = {name: there for name, one in those.items() if (there := outcomes(found, seeded(one)))}
    if untouched is None or RECIPE not in runs:
        return None
    rows = []
    for name, there in runs.items():
        tried = levers(scale).get(name, [])
        about = {
            "lever": name,
            "seeds": [trial.seed for trial in seeded(those[name])],
            "exploratory_runs": len(tried),
            "rates_tried": sorted({one.lr for one in tried}),
            "chosen": those[name].key,
        }
        rows.append(about | figures(there, untouched) | against(there, runs[RECIPE]))
    return {"rows": rows}


def table(result: Mapping[str, Any], part: str = "") -> list[dict[str, str]]:
    del part
    return [
        {
            "lever": row["lever"],
            "runs tried": str(row["exploratory_runs"]) if row["exploratory_runs"] else "–",
            "all": number(row["bits_per_byte_all"][1]),
            "against untouched": f"{row['change_all_to_untouched']:+.1%}",
            "new words": number(row["bits_per_byte_new"][1]),
            "new, against untouched": f"{row['change_new_to_untouched']:+.1%}",
            "never / 1–3 / often met": " / ".join(number(one, 2) for one in row["bits_per_byte_by_met"]),
            "other text": number(row["bits_per_byte_other"][1]),
            "all, less the recipe": "–" if row["lever"] == RECIPE else between(row["interval"]),
            "new, less the recipe": "–" if row["lever"] == RECIPE else between(row["interval_new"]),
        }
        for row in result["rows"]
    ]
