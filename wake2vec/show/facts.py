"""What a report tells about a run that its ledger does not: vocabulary, data, sessions, versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any

from wake2vec.contract.files import read_json
from wake2vec.contract.ledger import Ledger
from wake2vec.contract.rundir import RunDir


@dataclass(frozen=True, kw_only=True)
class SessionFact:
    """One life of a machine: the first step it trained, when it began (seconds since the epoch), on which card."""

    first_step: int
    started_at: float | None = None
    gpu: str = ""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything is optional but the model's name: what is not known is left out of the reports."""

    model: str
    base_tokens: int | None = None  # ids of the published tokenizer
    first_new_id: int | None = None
    n_new: int = 0  # ids
    n_forms: int = 0  # of these, ids of forms of words
    words_present: int | None = None  # new words that stand in the training blocks
    words_met: int | None = None  # of these, met by training so far
    places: Mapping[str, Any] | None = None  # where new words stand in the text: wake2vec.vocab.occurrences
    train_blocks: int | None = None
    held_out_windows: int | None = None
    held_out_bytes: int | None = None
    coverage: float | None = None  # share of the training blocks seen at least once
    sessions: tuple[SessionFact, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """As a reader knows it: where a folder lay on some machine says nothing."""
        return PurePath(self.model).name if PurePath(self.model).is_absolute() else self.model

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> RunFacts:
        """Unknown keys, of a later version, are left out."""
        known = {item.name: table[item.name] for item in fields(cls) if item.name in table}
        names = {item.name for item in fields(SessionFact)}
        sessions = [{key: value for key, value in row.items() if key in names} for row in known.pop("sessions", ())]
        return cls(**known, sessions=tuple(SessionFact(**row) for row in sessions))


def read_facts(run: RunDir) -> RunFacts | None:
    """The facts of the last writing of the artefacts; None when there was none."""
    table = read_json(run.training_log)
    try:
        return RunFacts.from_json(table["facts"]) if isinstance(table, dict) else None
    except (TypeError, KeyError, AttributeError):
        return None


def complete(facts: RunFacts, ledger: Ledger, *, batch: int | None) -> RunFacts:
    """Fill in what follows from the ledger: sessions from its resume events, coverage from steps and batch."""
    sessions = facts.sessions or sessions_of(ledger)
    coverage = facts.coverage
    if coverage is None and facts.train_blocks and batch and ledger.steps:
        # blocks come as whole permutations, so none is seen twice before all were seen once
        coverage = min(1.0, ledger.steps[-1].step * batch / facts.train_blocks)
    return replace(facts, sessions=sessions, coverage=coverage)


def sessions_of(ledger: Ledger) -> tuple[SessionFact, ...]:
    resumed = sorted({row.step for row in ledger.events if row.event == "resume"})
    starts = [0, *(step for step in resumed if step > 0)]
    return tuple(SessionFact(first_step=step) for step in starts)


def session_of(step: int, sessions: tuple[SessionFact, ...]) -> int:
    """Number of the session, from 1, that completed this step. A session that begins at 80 completes step 81 first."""
    return max(1, sum(session.first_step < step for session in sessions))


def ln_v(facts: RunFacts, ledger: Ledger) -> float | None:
    """Nats per token of guessing evenly: from the evaluations, else from the size of the vocabulary."""
    if ledger.ln_v is not None:
        return ledger.ln_v
    return math.log(facts.first_new_id + facts.n_new) if facts.first_new_id else None
