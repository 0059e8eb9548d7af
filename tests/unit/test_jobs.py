"""The job files that come with the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.jobfile.read import read_job
from runner.jobfile.source_job import SourceJob, source_faults, source_notes
from runner.states import State

JOBS = Path(__file__).parents[2] / "jobs"
FILES = sorted(path for path in JOBS.glob("*.toml") if "study" not in path.stem)
MODELS = [
    "demo", "distilgpt2", "gemma2_9b", "llama1b", "llama3b", "llama8b", "mistral", "phi", "qwen", "qwen3_8b", "tiny",
    "tinyllama",
]  # fmt: skip


def test_there_is_a_p1_and_a_p2_for_every_model():
    pairs = {f"{model}_{phase}" for model in MODELS for phase in ("p1", "p2")}

    assert pairs <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_job_file_is_valid_and_every_line_says_why(path):
    job = read_job(path)
    lines = path.read_text("utf-8").splitlines()

    assert job.phase == (path.stem[-2:] if path.stem[-3:] in ("_p1", "_p2", "_p3") else "command")
    assert lines[0] == "#:schema ./job.schema.json"
    assert [line for line in lines if re.match(r"\w+ = (?!\[$)", line) and " # " not in line] == []
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("model", MODELS)
def test_p2_fits_its_p1_and_holds_out_the_same_text(model):
    p1, p2 = read_job(JOBS / f"{model}_p1.toml"), read_job(JOBS / f"{model}_p2.toml")
    known = {p1.name: SourceJob(spec=p1, inputs=[], steps=None, state=State.QUEUED)}

    assert source_faults(p2, [], known) == []
    assert source_notes(p2, [], known) == []


@pytest.mark.parametrize("model", ["llama8b", "mistral", "tiny", "tinyllama"])
def test_p3_goes_on_from_its_p2_on_the_same_text(model):
    p2, p3 = read_job(JOBS / f"{model}_p2.toml"), read_job(JOBS / f"{model}_p3.toml")
    known = {p2.name: SourceJob(spec=p2, inputs=[], steps=None, state=State.QUEUED)}

    assert source_faults(p3, [], known) == []
    assert source_notes(p3, [], known) == []
    assert p3.data is not None
    assert p2.data is not None
    assert p3.data.seq_len == p2.data.seq_len


def test_qwen_is_what_the_user_ran():
    p1, p2 = read_job(JOBS / "qwen_p1.toml"), read_job(JOBS / "qwen_p2.toml")

    assert None not in (p1.model, p1.vocab, p1.data, p1.train, p2.data, p2.train, p2.lora)
    assert (p1.model.base, p1.model.load, p1.vocab.init) == ("Qwen/Qwen2.5-14B", "nf4", "mean")
    assert (p1.train.optimizer, p1.train.lr, p1.train.warmup_ratio, p1.train.batch) == ("adafactor", 5e-4, 0.05, 16)
    assert (p1.data.seq_len, p1.train.steps, p1.data.held_out, p1.data.seed) == (256, 1300, 0.1, 42)
    assert (p2.lora.r, p2.lora.alpha, p2.lora.dropout, len(p2.lora.targets)) == (8, 16, 0.1, 6)
    assert (p2.train.lr, p2.train.batch, p2.data.seq_len, p2.train.steps) == (2e-5, 16, 256, 3000)


def test_tinyllama_p2_is_what_the_user_ran():
    job = read_job(JOBS / "tinyllama_p2.toml")

    assert None not in (job.train, job.data, job.lora)
    assert (job.train.epochs, job.train.lr, job.train.warmup_ratio, job.train.batch) == (2.0, 2e-5, 0.1, 16)
    assert (job.train.weight_decay, job.data.seq_len, job.evaluate.patience) == (0.01, 512, 2)
    assert job.lora.targets == ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    assert job.checkpoint.every_steps == 200
