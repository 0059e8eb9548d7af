"""What the figures of a run say, in words: pure, from the table of figures alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENOUGH = 0.05


def verdict(figures: Mapping[str, Any]) -> str:
    """The claim that a run may make of its groups. It does not say why: only a control run does."""
    of_words = _of_device_words((figures.get("devices") or {}).get("held_out"))
    return _of_pairs(figures) + (f"; {of_words}" if of_words else "")


def _of_device_words(held: Mapping[str, Any] | None) -> str:
    if not held:
        return ""
    gains = held["value"] > held["start"] and held.get("p", 1.0) <= ENOUGH
    told = f"told apart at {held['start']:.3f} before, {held['value']:.3f} now"
    chance = f", p = {held['p']:.3f}" if "p" in held else ""
    return f"held-out device words {'gain' if gains else 'do not gain'} ({told}{chance})"


def _of_pairs(figures: Mapping[str, Any]) -> str:
    found = figures.get("consistency") or {}
    held, trained = found.get("held_out_gain_null"), (figures.get("trained_nulls") or {}).get("labels_gain")
    if not held:
        return "no pair is held out, so nothing can be said of words that were not trained on"
    told = f"{held['value']:+.4f}, p = {held['p']:.3f}"
    if held["value"] > 0 and held["p"] <= ENOUGH:
        return f"held-out pairs gain ({told}); whether by these losses, the run with weight = 0 says"
    if trained is None:
        return f"held-out pairs do not gain ({told}); trained ones, {found['trained_gain']:+.4f}, prove nothing"
    if trained["value"] > 0 and trained["p"] <= ENOUGH:
        return f"the gain is on trained pairs alone ({trained['value']:+.4f}; held out {told}), as on random rows"
    return f"no gain, neither on trained pairs ({trained['value']:+.4f}, p = {trained['p']:.3f}) nor held out ({told})"
