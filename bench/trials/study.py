"""What studies share: their scale, choosing by validation text, and figures over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.trials.held_out import PARTS, Measured, interval
from bench.trials.lab import Cut
from bench.trials.trial import Trial

Found = Mapping[str, dict[str, Any]]
SEEDS = (42, 43, 44)  # order of the blocks, noise of first rows, adapters; what is held out stays
EXPLORING = 41


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The lab of a study, and how much each of its trials reads."""

    lab: str = "smollm2"
    steps: int = 300
    batch: int = 8
    seq_len: int = 128
    exploring: int = 300  # steps of exploratory runs

    def trial(self, *, match: Any = "word", forms: Any = "one", line_breaks: Any = "keep", **more: Any) -> Trial:
        cut = Cut(match=match, forms=forms, line_breaks=line_breaks, seq_len=self.seq_len)
        return Trial(**{"lab": self.lab, "cut": cut, "steps": self.steps, "batch": self.batch, **more})

    def untouched(self, lab: str | None = None) -> Trial:
        return self.trial(match="none", way="none", lab=lab or self.lab)

    def explored(self, trial: Trial) -> Trial:
        return replace(trial, seed=EXPLORING, steps=trial.steps * self.exploring // self.steps)


def grid(plain: Mapping[str, Any], **choices: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of the choices on top of `plain`."""
    return [{**plain, **dict(zip(choices, values, strict=True))} for values in itertools.product(*choices.values())]


def seeded(trial: Trial) -> list[Trial]:
    """A reported trial with each seed; where it began is measured with the first."""
    return [replace(trial, seed=seed, start_too=seed == SEEDS[0]) for seed in SEEDS]


def best(found: Found, variants: Sequence[Trial], scale: Scale) -> Trial | None:
    """The variant with the fewest bits on the validation text; None until all were tried."""
    tried = [found.get(scale.explored(one).key) for one in variants]
    if any(one is None for one in tried):
        return None
    bits = [float("inf") if one is None or "error" in one else validation(one, "all") for one in tried]
    return variants[bits.index(min(bits))]


def validation(figures: Mapping[str, Any], part: str) -> float:
    bits = Measured.of([figures["after"]]).part(validation=True).bits(PARTS[part])
    assert bits is not None, "no such bytes"
    return bits


def outcomes(found: Found, trials: Iterable[Trial]) -> list[dict[str, Any]] | None:
    """The figures of all of them, or None while one is missing."""
    those = [found.get(trial.key) for trial in trials]
    return None if any(one is None or "error" in one for one in those) else [one for one in those if one]


def reported(runs: Sequence[Mapping[str, Any]], when: str = "after") -> Measured:
    return Measured.of([run[when] for run in runs if when in run]).part(validation=False)


def figures(runs: Sequence[Mapping[str, Any]], untouched: Mapping[str, Any]) -> dict[str, Any]:
    """Bits per byte on the reported text, before and after (mean over seeds), and against the untouched model."""
    after, none = reported(runs), reported([untouched])
    row: dict[str, Any] = {}
    for name, forms in PARTS.items():
        before = reported(runs, "before").bits(forms) if any("before" in run for run in runs) else None
        row[f"bits_per_byte_{name}"] = [before, after.bits(forms)]
        row[f"bits_per_byte_{name}_by_seed"] = [reported([run]).bits(forms) for run in runs]
        row[f"interval_{name}_to_untouched"] = interval(none, after, forms)
        row[f"change_{name}_to_untouched"] = _share(after.bits(forms), none.bits(forms))
    row["bits_per_byte_by_met"] = _by_met(runs)
    for name in ("english", "english_base"):
        row[name] = sum(run["after"][name] for run in runs) / len(runs)
    return row


def against(runs: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Intervals of these runs less the reference, in all text and on new words."""
    one, other = reported(reference), reported(runs)
    return {"interval": interval(one, other, PARTS["all"]), "interval_new": interval(one, other, PARTS["new"])}


def _share(bits: float | None, before: float | None) -> float | None:
    return None if bits is None or not before else bits / before - 1


def _by_met(runs: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Of words that training met never, up to three times, more often."""
    import numpy as np

    nats = np.sum([run["after"]["met_nats"] for run in runs], axis=0)
    size = np.sum([run["after"]["met_bytes"] for run in runs], axis=0)
    return [float(n / b / np.log(2)) if b else None for n, b in zip(nats, size, strict=True)]


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def between(value: Sequence[float]) -> str:
    """An interval of a difference, and whether it is within noise."""
    low, high = value
    noise = " (noise)" if low <= 0 <= high else ""
    return f"{low:+.4f} to {high:+.4f}{noise}"
