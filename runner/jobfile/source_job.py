"""Check that a job can build on the one that it names with `after`. Pure: both are given."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.jobfile.modelfolder import same_weights
from runner.jobfile.read import Resolved
from runner.states import FINAL, State
from wake2vec.contract.errors import Fault
from wake2vec.contract.files import counted
from wake2vec.contract.order import InputFile
from wake2vec.contract.spec import JobSpec, P1Spec, P2Spec, P3Spec, TrainingSpec


@dataclass(frozen=True, kw_only=True)
class SourceJob:
    """A job that is in the queue, or comes before in the same call."""

    spec: JobSpec
    inputs: Sequence[InputFile]
    steps: int | None
    state: State
    files: Mapping[str, Path] = field(default_factory=dict)  # where its texts lie, by sha256


def source_faults(job: JobSpec, inputs: Sequence[InputFile], known: Mapping[str, SourceJob]) -> list[Fault]:
    """Why the job can never run on top of its source; empty when it can."""
    if job.after is None:
        return []
    source = known.get(job.after)
    if source is None:
        return [Fault(key="after", problem=_no_such_job(job.after, known))]
    if not isinstance(job, P2Spec | P3Spec):
        return []
    wanted, what = (P1Spec, "the rows of a p1") if isinstance(job, P2Spec) else (P2Spec, "the adapter of a p2")
    if not isinstance(source.spec, wanted):
        problem = f"{job.after} is a {source.spec.phase} job; {job.phase.upper()} builds on {what} job"
        return [Fault(key="after", problem=problem)]
    found = [
        _other_model(job, inputs, source.spec, source.inputs),
        _other_blocks(job, source.spec),
        _no_such_checkpoint(job, source),
    ]
    if isinstance(job, P3Spec) and isinstance(source.spec, P2Spec):
        found += [_other_adapter(job, source.spec), _leak(job, inputs, source.spec, source.inputs)]
    return [fault for fault in found if fault]


def on_top_of(resolved: Resolved, known: Mapping[str, SourceJob]) -> Resolved:
    """A P3 with the adapter of its P2 and, where that was imported, the words and rows that it was imported with."""
    job, source = resolved.job, known.get(resolved.job.after or "")
    if not isinstance(job, P3Spec) or source is None or not isinstance(source.spec, P2Spec):
        return resolved
    theirs = source.spec.lora
    taken = {"r": theirs.r, "alpha": theirs.alpha, "targets": theirs.targets}
    if "dropout" not in job.lora.model_fields_set:
        taken["dropout"] = theirs.dropout
    words = [item for item in source.inputs if source.spec.vocab and item.role in ("start", "lexicon", "morphemes")]
    return replace(
        resolved,
        job=job.model_copy(update={"lora": job.lora.model_copy(update=taken), "vocab": source.spec.vocab}),
        inputs=[*resolved.inputs, *words],
        files=resolved.files | {item.sha256: source.files[item.sha256] for item in words},
    )


def _other_adapter(job: P3Spec, source: P2Spec) -> Fault | None:
    if source.lora.train == "all":
        return Fault(key="after", problem=f"{job.after} trained every weight (lora.train = all); P3 needs an adapter")
    if job.vocab is not None:
        return Fault(key="vocab", problem=f"its words are those of {job.after}; leave it out")
    for key in ("r", "alpha", "targets"):
        mine, theirs = getattr(job.lora, key), getattr(source.lora, key)
        if key in job.lora.model_fields_set and mine != theirs:
            return Fault(
                key=f"lora.{key}", problem=f"{mine}, but the adapter of {job.after} has {theirs}; leave it out"
            )
    return None


def _leak(job: P3Spec, inputs: Sequence[InputFile], source: P2Spec, its_inputs: Sequence[InputFile]) -> Fault | None:
    """By hand it happened: 90 % of what a P3 was measured on had been trained on, and its loss looked fine."""
    if _held_out(job, inputs) == _held_out(source, its_inputs):
        return None
    problem = f"{_split_of(job)} holds out another part of the text than {job.after} ({_split_of(source)})"
    return Fault(key="data", problem=f"{problem}, so it would be measured on text that was trained on; give the same")


def _split_of(job: TrainingSpec) -> str:
    return (
        f"held_out = {job.data.held_out}, seed = {job.data.seed}, split = {job.data.split}, "
        f"seq_len = {job.data.seq_len}, {counted(len(job.data.corpora), 'text')}"
    )


def _no_such_job(name: str, known: Mapping[str, SourceJob]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if nearest:
        return f"there is no job {name}; did you mean {nearest[0]}?"
    first = f"name its file before this one (enqueue {name}.toml THIS.toml)"
    return f"there is no job {name} in the queue; {first}, or `start` once, which fetches the store's jobs"


def _other_model(
    job: TrainingSpec, inputs: Sequence[InputFile], source: TrainingSpec, its_inputs: Sequence[InputFile]
) -> Fault | None:
    here, there = _digest(inputs), _digest(its_inputs)
    if here != there or not same_weights(inputs, its_inputs):
        problem = f"{job.model.base} is another model or tokenizer than {job.after}'s ({source.model.base})"
        return Fault(key="model.base", problem=f"{problem}; rows of one mean nothing to the other")
    if here is None and job.model.base != source.model.base:
        problem = f"{job.model.base}, but {job.after} trains {source.model.base}; they must be the same model"
        return Fault(key="model.base", problem=problem)
    if here is None and job.model.revision != source.model.revision:
        problem = f"{job.model.revision}, but {job.after} uses {source.model.revision}; they must be the same"
        return Fault(key="model.revision", problem=problem)
    return None


def _other_blocks(job: P2Spec | P3Spec, source: TrainingSpec) -> Fault | None:
    """Blocks of another length hold out other text, so that what is measured would have been trained on."""
    here, there = job.data, source.data
    if "blocks" not in (here.split, there.split) or here.seq_len == there.seq_len:
        return None
    problem = f'{here.seq_len}, but {job.after} held out blocks of {there.seq_len} tokens (split = "blocks")'
    return Fault(key="data.seq_len", problem=f'{problem}; use the same length, or split = "text" in both')


def _no_such_checkpoint(job: P2Spec | P3Spec, source: SourceJob) -> Fault | None:
    if not isinstance(job.rows, int) or source.steps is None:
        return None
    if job.rows > source.steps:
        return Fault(key="rows", problem=f"step {job.rows}, but {job.after} has {source.steps} steps")
    every = source.spec.checkpoint.every_steps
    if job.rows % every and job.rows != source.steps:
        problem = f"step {job.rows} is no milestone of {job.after}; give a multiple of {every}, or {source.steps}"
        return Fault(key="rows", problem=f'{problem}, "best" or "final"')
    return None


def _digest(inputs: Sequence[InputFile]) -> str | None:
    return next((item.sha256 for item in inputs if item.role == "model"), None)


def source_notes(job: JobSpec, inputs: Sequence[InputFile], known: Mapping[str, SourceJob]) -> list[str]:
    """What a person should know although the job can run."""
    source = known.get(job.after or "")
    if source is None or not isinstance(job, P2Spec | P3Spec) or not isinstance(source.spec, P1Spec | P2Spec):
        return []
    notes = []
    if source.state in FINAL and source.state is not State.SUCCEEDED:
        notes.append(f"{job.name} waits for {job.after}, which has {source.state}: wake2vec-runner retry {job.after}")
    if _held_out(job, inputs) != _held_out(source.spec, source.inputs):
        notes.append(
            f"{job.name} holds out another part of the text than {job.after} (data.corpus, held_out, seed or split, or "
            "how blocks are cut, differ): its held-out loss will include text that "
            f"{source.spec.phase.upper()} was trained on"
        )
    if job.model.load != source.spec.model.load:
        notes.append(f"{job.name} loads the body as {job.model.load}, {job.after} as {source.spec.model.load}")
    return notes


def _held_out(job: TrainingSpec, inputs: Sequence[InputFile]) -> tuple[object, ...]:
    corpora = [item.sha256 for item in inputs if item.role == "corpus"]
    data = job.data
    of_blocks = (data.seq_len, data.shuffle, data.line_breaks, data.hyphens, data.lexicon_in_corpus)
    return (corpora, data.held_out, data.seed, data.split, *(of_blocks if data.split == "blocks" else ()))
