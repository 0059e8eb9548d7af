"""What is wrong with a run, as far as its figures tell, the worst first. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from wake2vec.contract.ledger import Ledger
from wake2vec.contract.words.forms import MOST_IN_PIECES
from wake2vec.show.facts import RunFacts, ln_v


def worries(facts: RunFacts, ledger: Ledger) -> list[str]:
    """Whole sentences; none where nothing is known to be wrong."""
    return [
        *_no_number(ledger),
        *_worse_than_guessing(facts, ledger),
        *_nothing_moved(ledger),
        *_not_met(facts),
        *_in_pieces(facts),
    ]


def _no_number(ledger: Ledger) -> Iterator[str]:
    if ledger.evaluations and not math.isfinite(ledger.evaluations[-1].loss):
        yield "The last held-out loss is no number: the model is broken from there on."


def _worse_than_guessing(facts: RunFacts, ledger: Ledger) -> Iterator[str]:
    """`ln V` is what a model would score that knows nothing; in the words it learns it must do better than that."""
    floor, best = ln_v(facts, ledger), ledger.best
    if floor is None or best is None:
        return
    if best.loss >= floor:
        away = best.loss - floor
        yield f"The model does worse than guessing: its best is {away:.2f} nats above ln V = {floor:.2f}."
        yield "Was a pretrained head overwritten?"
    elif best.new_loss is not None and best.new_loss >= floor:
        yield f"New words are worse than guessing, {best.new_loss:.2f} nats where ln V = {floor:.2f}, at the best step."


def _nothing_moved(ledger: Ledger) -> Iterator[str]:
    norms = [row.grad_norm for row in ledger.steps if row.grad_norm is not None]
    losses = {(row.loss, row.new_loss) for row in ledger.evaluations}
    if norms and not any(norms):
        yield f"Nothing moved: the gradient was 0 in all of {len(norms):,} steps."
    elif len(ledger.evaluations) > 1 and len(losses) == 1:
        yield f"Nothing moved: all {len(ledger.evaluations)} evaluations gave the same figures."


def _not_met(facts: RunFacts) -> Iterator[str]:
    present, met = facts.words_present, facts.words_met
    if present is None or met is None or not facts.n_new:
        return
    if met < present:
        yield f"Training has met {met:,} of the {present:,} new words that stand in its text."
    words = facts.n_new - facts.n_forms
    if present < words:
        missing = words - present
        yield f"{missing:,} of {words:,} new words are nowhere in the training text: nothing teaches them."


def _in_pieces(facts: RunFacts) -> Iterator[str]:
    """Places of new words that are read in pieces teach their rows nothing, and the model cannot write them there."""
    forms = (facts.places or {}).get("by_form", {})
    pieces = {form: row["occurrences"] - row["met"] - row["base"] for form, row in forms.items()}
    every, broken = sum(row["occurrences"] for row in forms.values()), sum(pieces.values())
    if broken > MOST_IN_PIECES * every:
        most = sorted(pieces, key=lambda form: -pieces[form])[:3]
        listed = ", ".join(f"{form} {pieces[form]:,}" for form in most if pieces[form])
        yield f"{broken:,} of {every:,} places of new words are read in pieces ({broken / every:.0%}: {listed})."
