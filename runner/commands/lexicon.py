"""lexicon: what a job's tokenizer knows of its word list already, and what the text gains by adding it."""

from __future__ import annotations

from pathlib import Path

from runner.backend import run_module
from runner.jobfile import read_job, resolve_inputs
from wake2vec.errors import Fault, SpecError


def run(file: Path, *, as_json: bool) -> None:
    """Raises SpecError for anything but a whole P1 job file; exits with the survey's own code."""
    job = read_job(file)
    if job.vocab is None:
        raise SpecError(str(file), [Fault(key="vocab", problem=f"a {job.phase} job adds no words; name its p1 file")])
    resolved = resolve_inputs(job, file.parent, str(file))
    assert resolved.job.model is not None
    [lexicon] = [resolved.files[item.sha256] for item in resolved.inputs if item.role == "lexicon"]
    corpora = [resolved.files[item.sha256] for item in resolved.inputs if item.role == "corpus"]
    words: list[str | Path] = [lexicon, "--model", resolved.job.model.base, "--match", job.vocab.match]
    words += ["--case", job.vocab.case, "--corpus", *corpora]
    run_module("wake2vec.vocab.survey", [*words, *(["--json"] if as_json else [])])
