"""Measure the held-out text: language-model loss alone, in chunks whose sums survive a cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wake2vec.contract.errors import OutOfMemory
from wake2vec.contract.expectation import parse_stop_rule
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import counted, read_json, write_json
from wake2vec.contract.ledger import EvaluationRow, to_json
from wake2vec.contract.tables import EvaluateTable
from wake2vec.data.blocks import IGNORED, Windows
from wake2vec.model.device import free_memory, is_out_of_memory
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.split_vocabulary import SplitHead
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.train.ranks.team import Alone, Measure, Team
from wake2vec.train.stopping import Stop


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Partial sums over held-out windows; plain floats, so that JSON gives them back to the bit."""

    windows: int = 0
    new_nats: float = 0.0
    new_tokens: int = 0
    base_nats: float = 0.0
    base_tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Sums) -> Sums:
        mine, more = asdict(self), asdict(other)
        return Sums(**{name: mine[name] + more[name] for name in mine})

    @property
    def nats(self) -> float:
        return self.new_nats + self.base_nats

    @property
    def tokens(self) -> int:
        return self.new_tokens + self.base_tokens

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One evaluation: the held-out text, and the English control in the two ways that its change is read by."""

    held_out: Sums
    english: Sums  # in the job's own tokens, against its whole vocabulary: what a user of the result gets
    english_base: Sums  # in published tokens, against those alone: the published model's figure until its body moves


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Windows, and the vocabulary that their targets are measured against."""

    windows: Windows
    head: SplitHead
    limit: int | None = None  # measured at most


def texts_of(prepared: Prepared, material: JobInputs) -> dict[str, EvaluationSet]:
    """All that an evaluation measures, by the name of the file that keeps its partial sums."""
    head = prepared.rows.head
    return {
        "partial": EvaluationSet(windows=material.windows, head=head, limit=material.job.evaluate.max_windows),
        "partial-english": EvaluationSet(windows=material.english, head=head),
        "partial-english-base": EvaluationSet(windows=material.english_base, head=head.without_new()),
    }


def evaluate(
    prepared: Prepared,
    material: JobInputs,
    *,
    folder: Path,
    key: str,
    stop: Stop,
    progress: Callable[[float], None],
    team: Team | None = None,
) -> Losses | None:
    """All that an evaluation measures; None when a stop was asked for. Partial sums lie in `folder`, under `key`."""
    found = []
    for name, text in texts_of(prepared, material).items():
        sums = measure(
            prepared,
            text,
            name=name,
            rows_at_once=text.windows.parts()[0].stop,
            partial=folder / f"{name}.json",
            key=key,
            stop=stop,
            progress=progress,
            team=team,
        )
        if sums is None:
            return None
        found.append(sums)
    return Losses(held_out=found[0], english=found[1], english_base=found[2])


def measure(
    prepared: Prepared,
    text: EvaluationSet,
    *,
    name: str = "",
    rows_at_once: int,
    partial: Path,
    key: str,
    stop: Stop,
    progress: Callable[[float], None],
    team: Team | None = None,
) -> Sums | None:
    """Sums over all windows, or over an even choice of some of them; None when a stop was asked for.

    `partial` keeps the sums so far under `key`, which names the weights that are measured: an evaluation that a cut
    interrupts goes on where it was. Each rank takes some windows, and the sums are added in the order of the text.
    Where memory runs out, half as many are taken at once; raises OutOfMemory when one alone does not fit.
    """
    chosen = choose_windows(len(text.windows.inputs), text.limit)
    sums, team = _read_partial(partial, key), team or Alone()
    prepared.model.eval()
    while sums.windows < len(chosen):
        if stop.is_asked:
            return None
        left = chosen[sums.windows :]
        parts = tuple(left[at : at + rows_at_once] for at in range(0, len(left), rows_at_once))[: team.size]
        found = _measured_if_it_fits(prepared, text, name, parts, team)
        if found is None:
            rows_at_once = _half(rows_at_once, text.windows)
            free_memory(prepared.trainable.values())
            continue
        for one in found:
            sums = sums + one if one is not None else sums
        write_json(partial, {"key": key, "sums": asdict(sums)}, durable=False)
        failpoint("evaluation.chunk")
        progress(sums.windows / len(chosen))
    return sums


def forget_partial_sums(folder: Path) -> None:
    """For a job that measures no more: by them an evaluation goes on after a cut, until its row is in the ledger."""
    for path in folder.glob("partial*.json"):
        path.unlink(missing_ok=True)


def choose_windows(count: int, limit: int | None) -> list[int]:
    """Evenly spread over the held-out text, and the same every time."""
    if limit is None or limit >= count:
        return list(range(count))
    return [index * count // limit for index in range(limit)]


def _read_partial(path: Path, key: str) -> Sums:
    table = read_json(path)
    return Sums(**table["sums"]) if isinstance(table, dict) and table.get("key") == key else Sums()


def _half(rows_at_once: int, windows: Windows) -> int:
    if rows_at_once == 1:
        raise OutOfMemory(f"a held-out window of {windows.inputs.shape[1]} tokens does not fit beside the model")
    return rows_at_once // 2


def _measured_if_it_fits(
    prepared: Prepared, text: EvaluationSet, name: str, parts: tuple[list[int], ...], team: Team
) -> list[Sums | None] | None:
    """None when memory ran out; returning drops the traceback, which keeps the failed pass alive."""
    try:
        return team.do(Measure(text=name, parts=parts), lambda: sums_of(prepared, text, parts[0]))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


@torch.no_grad()
def sums_of(prepared: Prepared, text: EvaluationSet, part: list[int]) -> Sums | None:
    """Over some windows of a text."""
    inputs = torch.from_numpy(text.windows.inputs[part]).to(prepared.device)  # [w, L]
    targets = torch.from_numpy(text.windows.targets[part]).to(prepared.device)
    failpoint("evaluation.forward")
    hidden = prepared.hidden(inputs).flatten(0, 1)
    nll = blocked_cross_entropy(hidden, text.head, targets.flatten()).token_nll.double()  # [w * L]
    is_new = targets.flatten() >= text.head.first_new_id
    is_base = (targets.flatten() != IGNORED) & ~is_new
    return Sums(
        windows=len(part),
        new_nats=float(nll[is_new].sum()),
        new_tokens=int(is_new.sum()),
        base_nats=float(nll[is_base].sum()),
        base_tokens=int(is_base.sum()),
        bytes=int(text.windows.bytes[part].sum()),
    )


def as_row(measured: Losses, *, vocabulary: int, **more: Any) -> dict[str, Any]:
    """The ledger row of an evaluation: nats per token, bits per byte, and ln V as the line to beat.

    `more`: fields of the row that are not measured on a text.
    """
    sums = measured.held_out
    row = EvaluationRow(
        loss=sums.nats / sums.tokens,
        tokens=sums.tokens,
        bits_per_byte=sums.bits_per_byte,
        bytes=sums.bytes,
        new_loss=sums.new_nats / sums.new_tokens if sums.new_tokens else None,
        new_tokens=sums.new_tokens,
        base_loss=sums.base_nats / sums.base_tokens if sums.base_tokens else None,
        base_tokens=sums.base_tokens,
        english_bits_per_byte=measured.english.bits_per_byte,
        english_base_bits_per_byte=measured.english_base.bits_per_byte,
        ln_v=math.log(vocabulary),
        **more,
    )
    return to_json(row)


@dataclass(frozen=True, kw_only=True)
class EvaluationVerdict:
    """What the evaluations so far say: the best one, and whether the job should end here."""

    best_step: int | None = None
    best_loss: float | None = None  # the lowest of all
    passed: float | None = None  # the last that was lower than the one before it by `min_delta`
    without_best: int = 0
    stop_reason: str = ""


def judge(evaluations: Iterable[EvaluationRow], rules: EvaluateTable) -> EvaluationVerdict:
    """A pure function of the ledger, so that patience and the best checkpoint cannot be lost by a resume.

    Step 0 is the line to beat, not a candidate: it has no checkpoint.
    """
    verdict = EvaluationVerdict()
    for row in sorted(evaluations, key=lambda row: row.step):
        if row.step == 0:
            continue
        if verdict.best_loss is None or row.loss < verdict.best_loss:
            verdict = replace(verdict, best_step=row.step, best_loss=row.loss)
        if verdict.passed is None or row.loss < verdict.passed - rules.min_delta:
            verdict = replace(verdict, passed=row.loss, without_best=0)
        else:
            verdict = replace(verdict, without_best=verdict.without_best + 1)
        if rules.patience is not None and verdict.without_best >= rules.patience:
            return replace(verdict, stop_reason=f"{counted(verdict.without_best, 'evaluation')} without a new best")
        if reason := _stop_rule(row, rules.stop_if):
            return replace(verdict, stop_reason=reason)
    return verdict


def _stop_rule(row: EvaluationRow, rule: str | None) -> str:
    limit, step = parse_stop_rule(rule) if rule else (math.inf, 0)
    return f"{rule}: it is {row.loss:.4f}" if row.step == step and row.loss > limit else ""


@torch.no_grad()
def probe_loss(prepared: Prepared, windows: Windows) -> float:
    """Loss of one short fixed window, dropout off: kept in a manifest, computed again after loading."""
    length = min(64, windows.inputs.shape[1])
    prepared.model.eval()
    inputs = torch.from_numpy(windows.inputs[:1, :length].copy()).to(prepared.device)
    targets = torch.from_numpy(windows.targets[:1, :length].copy()).to(prepared.device).flatten()
    hidden = prepared.hidden(inputs).flatten(0, 1)
    nll = blocked_cross_entropy(hidden, prepared.rows.head, targets).token_nll.double()
    return float(nll.sum() / max(1, int((targets != IGNORED).sum())))
