"""lexicon: what a tokenizer knows of a word list already, and what the text gains by adding it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.commands.results.process import use
from runner.jobfile.read import read_job, resolve_inputs
from wake2vec.contract.errors import Fault, SpecError
from wake2vec.contract.options import SurveyOptions


def run(file: Path, *, model: str | None, corpora: Sequence[Path], as_json: bool) -> None:
    """`file` is a word list where a model is named, else a P1 job file; exits with the survey's own code."""
    use(
        _of_job(file, as_json)
        if model is None
        else SurveyOptions.of(lexicon=file, model=model, corpora=corpora, as_json=as_json)
    )


def _of_job(file: Path, as_json: bool) -> SurveyOptions:
    """Of the lexicon, the model and the text that a job names. Raises SpecError."""
    job = read_job(file)
    if job.vocab is None:
        problem = f"a {job.phase} job adds no words; name its p1 file, or a word list with --model"
        raise SpecError(str(file), [Fault(key="vocab", problem=problem)])
    resolved = resolve_inputs(job, file.parent, str(file))
    assert resolved.job.model, "what has words has a model"
    [lexicon] = [resolved.files[item.sha256] for item in resolved.inputs if item.role == "lexicon"]
    return SurveyOptions(
        lexicon=lexicon,
        model=resolved.job.model.base,
        corpora=[resolved.files[item.sha256] for item in resolved.inputs if item.role == "corpus"],
        match=job.vocab.match,
        case=job.vocab.case,
        forms=job.vocab.forms,
        line_breaks=job.data.line_breaks if job.data else "keep",
        hyphens=job.data.hyphens if job.data else "keep",
        as_json=as_json,
    )
