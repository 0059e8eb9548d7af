"""Open questions, answered by measurement: `python -m bench.trials questions`.

Is training rows over a 4-bit body stable, can the rows be held in 16 bits, what is left of a chat model's manners, and
does a larger published vocabulary need less change. Every trial is a P1 as jobs have it, with three seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.trials.crew import rows_file
from bench.trials.held_out import PARTS, interval
from bench.trials.study import SEEDS, Found, Scale, between, figures, number, outcomes, reported, seeded
from bench.trials.trial import Trial

LAB = "smollm2"  # whose figures the file of this name holds
BODIES = ("exact", "bf16", "fp16", "nf4")
BODY_NAMES = {"exact": "fp32", "bf16": "bf16", "fp16": "fp16", "nf4": "NF4"}
HELD = ("fp32", "fp16", "bf16", "bf16 drawn")
VOCABULARIES = (2048, 16384)
ADAPTER_RATE = 1e-3


def bodies(scale: Scale) -> dict[str, Trial]:
    has_fp16 = scale.lab == "smollm2" or torch.cuda.is_available()  # a CPU has none
    names = [name for name in BODIES if has_fp16 or name != "fp16"]
    return {name: scale.trial(body=name, keep_rows=True) for name in names}


def held(scale: Scale) -> dict[str, Trial]:
    """At the usual rate, and at one for which the steps are small."""
    return {
        f"{rate:g} {name}": scale.trial(held=name, lr=rate, keep_rows=True) for rate in (5e-3, 5e-4) for name in HELD
    }


def chat(scale: Scale) -> list[Trial]:
    """P1, then P2 over its rows; with the replies of a model that chats."""
    chats = scale.lab == "smollm2"
    return [scale.trial(way="lora", chat=chats, start_too=True, lr=ADAPTER_RATE, seed=seed) for seed in SEEDS]


def published(scale: Scale) -> Trial:
    return replace(scale.untouched(), chat=scale.lab == "smollm2")


def vocabularies(scale: Scale) -> dict[str, Trial]:
    if scale.lab != "smollm2":
        return {}
    small = Scale(steps=scale.steps // 3, batch=4, seq_len=64)  # as their models and texts are
    return {str(size): small.trial(lab=f"vocabulary-{size}") for size in VOCABULARIES}


def alone(trial: Trial) -> Trial:
    """The untouched model in the lab of a trial."""
    return replace(Scale(seq_len=trial.cut.seq_len).untouched(trial.lab), steps=trial.steps, batch=trial.batch)


def plan(found: Found, scale: Scale) -> list[Trial]:
    del found
    ways = [*bodies(scale).values(), *held(scale).values(), *vocabularies(scale).values()]
    untouched = [published(scale), scale.untouched(), *map(alone, vocabularies(scale).values())]
    return [*chat(scale), *untouched, *(trial for one in ways for trial in seeded(one))]


def summary(found: Found, scale: Scale) -> dict[str, Any] | None:
    untouched = found.get(scale.untouched().key)
    if untouched is None:
        return None
    return {
        "bodies": beside_the_first(found, bodies(scale), untouched),
        "held": [
            row
            for rate in ("0.005", "0.0005")
            for row in beside_the_first(
                found, {name: one for name, one in held(scale).items() if name.startswith(f"{rate} ")}, untouched
            )
        ],
        "chat": manners(found, scale),
        "vocabularies": sizes(found, scale),
    }


def beside_the_first(found: Found, those: Mapping[str, Trial], untouched: Mapping[str, Any]) -> list[dict[str, Any]]:
    there = {name: outcomes(found, seeded(one)) for name, one in those.items()}
    first = next(iter(there.values()))
    rows = []
    for name, runs in there.items():
        if runs is None or first is None:
            continue
        # what left the range of its numbers is no figure; it is seen by its seed that is missing
        whole = [place for place, run in enumerate(runs) if np.isfinite(run["after"]["nats"]).all()]
        kept, beside = [runs[place] for place in whole], [first[place] for place in whole]
        row = {"name": name, "seeds": [SEEDS[place] for place in whole]} | figures(kept, untouched)
        for key, part in (("interval", "all"), ("interval_new", "new")):
            row[key] = interval(reported(beside), reported(kept), PARTS[part])
        row |= {key: _mean(kept, key) for key in ("rounded_to_nothing", "moved", "cosine", "cosine_of_moves")}
        row["curve"] = np.round(np.mean([run["curve"] for run in kept], axis=0), 4).tolist()
        rows.append(row)
    return rows


def _mean(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    there = [run[name] for run in runs if name in run]
    return float(np.mean(there)) if there else None


def compare_rows(found: dict[str, dict[str, Any]], scale: Scale, folder: Path) -> list[str]:
    """Add to each outcome how its rows and their moves lie to those of the first of its table, with the same seed.

    Returns the keys of what it added to; rows are on disk only where the trials ran.
    """
    changed = []
    by_rate = [
        {name: one for name, one in held(scale).items() if name.startswith(f"{rate} ")} for rate in ("0.005", "0.0005")
    ]
    for those in (bodies(scale), *by_rate):
        first, *_ = those.values()
        for one in those.values():
            for reference, trial in zip(seeded(first), seeded(one), strict=True):
                paths = [folder / rows_file(which) for which in (reference, trial)]
                if trial.key in found and all(path.exists() for path in paths):
                    found[trial.key] |= cosines(*paths)
                    changed.append(trial.key)
    return changed


def cosines(reference: Path, other: Path) -> dict[str, float]:
    """Of final rows, and of what moved them; means over the rows that moved in the reference."""
    from safetensors.torch import load_file
    from torch.nn import functional as F

    one, two = load_file(reference), load_file(other)
    names = [name for name in one if not name.startswith("start.")]  # one matrix, or one for each side
    ends = [torch.cat([rows[name] for name in names]) for rows in (one, two)]
    starts = [torch.cat([rows[f"start.{name}"] for name in names]) for rows in (one, two)]
    move_one, move_two = (end - start for end, start in zip(ends, starts, strict=True))
    moved = move_one.norm(dim=1) > 0
    return {
        "cosine": round(float(F.cosine_similarity(ends[0], ends[1])[moved].mean()), 5),
        "cosine_of_moves": round(float(F.cosine_similarity(move_one, move_two)[moved].mean()), 5),
    }


def manners(found: Found, scale: Scale) -> list[dict[str, Any]]:
    """A chat model before anything, after P1 and after P2: on the text, and on its own replies."""
    runs, alone = outcomes(found, chat(scale)), outcomes(found, [published(scale)])
    if runs is None or alone is None:
        return []
    stages = {"as published": (alone, "after", 0), "new rows in place": (runs, "before", 0)}
    stages |= {"after P1": (runs, "after_rows", 1), "after P2": (runs, "after", 2)}
    rows = []
    for name, (those, when, place) in stages.items():
        row = {"stage": name, "seeds": list(SEEDS) if those is runs else []}
        row |= figures([{"after": run[when]} for run in those], alone[0])
        said = [run["chat"][place] for run in those if "chat" in run]
        rows.append(row | {key: float(np.mean([one[key] for one in said])) for key in (said[0] if said else {})})
    return rows


def sizes(found: Found, scale: Scale) -> list[dict[str, Any]]:
    rows = []
    for name, one in vocabularies(scale).items():
        runs, untouched = outcomes(found, seeded(one)), found.get(alone(one).key)
        if runs is not None and untouched is not None:
            row = {"vocabulary": int(name), "seeds": list(SEEDS), "new_ids": runs[0]["new_ids"]}
            rows.append(
                row
                | figures(runs, untouched)
                | {"moved": _mean(runs, "moved")}
                | {f"untouched_{part}": reported([untouched]).bits(forms) for part, forms in PARTS.items()}
            )
    return rows


def table(result: Mapping[str, Any], part: str = "") -> list[dict[str, str]]:
    return [_LINES[part](row) for row in result[part]]


def _body(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "body": BODY_NAMES[row["name"]],
        "training nats, first to last": f"{row['curve'][0]:.3f} … {row['curve'][-1]:.3f}",
        "seeds": str(len(row["seeds"])),
        "all": " → ".join(number(one, 4) for one in row["bits_per_byte_all"]),
        "all, less fp32": _less(row, "interval", first=row["name"] == BODIES[0]),
        "new words": " → ".join(number(one) for one in row["bits_per_byte_new"]),
        "new, less fp32": _less(row, "interval_new", first=row["name"] == BODIES[0]),
        "cosine of final rows": number(row["cosine"], 4),
        "of their moves": number(row["cosine_of_moves"], 4),
    }


def _held(row: Mapping[str, Any]) -> dict[str, str]:
    rate, _, name = row["name"].partition(" ")
    lost = row["rounded_to_nothing"]
    return {
        "rate": rate,
        "rows in": name.replace(" drawn", ", rounded by a draw"),
        "steps of entries rounded to nothing": "–" if lost is None else f"{lost:.1%}",
        "all": number(row["bits_per_byte_all"][1], 4),
        "all, less fp32": _less(row, "interval", first=name == HELD[0]),
        "new words": number(row["bits_per_byte_new"][1], 4),
        "new, less fp32": _less(row, "interval_new", first=name == HELD[0]),
        "cosine of final rows": number(row["cosine"], 4),
        "of their moves": number(row["cosine_of_moves"], 4),
    }


def _less(row: Mapping[str, Any], name: str, *, first: bool) -> str:
    return "–" if first else between(row[name])


def _chat(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "model": row["stage"],
        "all": number(row["bits_per_byte_all"][1]),
        "new words": number(row["bits_per_byte_new"][1]),
        "English base": number(row["english_base"]),
        "its own replies, nats per token": number(row.get("nats"), 4),
        "tokens still chosen": f"{row['same']:.1%}",
        "ends of reply still chosen": f"{row['ends']:.1%}",
    }


def _vocabulary(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "published tokens": f"{row['vocabulary']:,}",
        "new ids": f"{row['new_ids']:,}",
        "all": f"{number(row['untouched_all'])} → {number(row['bits_per_byte_all'][1])}",
        "change": f"{row['change_all_to_untouched']:+.1%}",
        "words in any form": f"{number(row['untouched_words'])} → {number(row['bits_per_byte_words'][1])}",
        "change of words": f"{row['change_words_to_untouched']:+.1%}",
        "other text": f"{number(row['untouched_other'])} → {number(row['bits_per_byte_other'][1])}",
        "how far rows moved": f"{row['moved']:.1%}",
        "all, less untouched": between(row["interval_all_to_untouched"]),
    }


_LINES = {"bodies": _body, "held": _held, "chat": _chat, "vocabularies": _vocabulary}
