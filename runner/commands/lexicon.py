"""lexicon: what a tokenizer knows of a word list already, and what the text gains by adding it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.backend import run_module
from runner.jobfile import read_job, resolve_inputs
from wake2vec.errors import Fault, SpecError


def run(file: Path, *, model: str | None, corpora: Sequence[Path], as_json: bool) -> None:
    """`file` is a word list where a model is named, else a P1 job file; exits with the survey's own code."""
    words = _of_job(file) if model is None else [file, "--model", model]
    if model is not None and corpora:
        words += ["--corpus", *corpora]
    run_module("wake2vec.vocab.survey", [*words, *(["--json"] if as_json else [])])


def _of_job(file: Path) -> list[str | Path]:
    """The survey's command line for the lexicon, the model and the text that a job names. Raises SpecError."""
    job = read_job(file)
    if job.vocab is None:
        problem = f"a {job.phase} job adds no words; name its p1 file, or a word list with --model"
        raise SpecError(str(file), [Fault(key="vocab", problem=problem)])
    resolved = resolve_inputs(job, file.parent, str(file))
    assert resolved.job.model is not None
    [lexicon] = [resolved.files[item.sha256] for item in resolved.inputs if item.role == "lexicon"]
    corpora = [resolved.files[item.sha256] for item in resolved.inputs if item.role == "corpus"]
    words: list[str | Path] = [lexicon, "--model", resolved.job.model.base, "--match", job.vocab.match]
    return [*words, "--case", job.vocab.case, "--corpus", *corpora]
