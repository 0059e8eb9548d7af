"""How often a rehearsal saves."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from bench.demo import JOBS
from bench.material.random_models import config_of
from bench.resilience.rehearsal import (
    LEAST_MINUTES,
    MOST_MINUTES,
    before,
    job_file,
    minutes_between_checkpoints,
)
from wake2vec.contract.models.model_shapes import SHAPES


def minutes(folder: Path, *, phase: str, words: int) -> float:
    lexicon = folder / "words.txt"
    lexicon.write_text("".join(f"word{number}\n" for number in range(words)))
    chosen = argparse.Namespace(lexicon=lexicon, corpus=folder / "text.txt", seq_len=256, batch=16)
    for name, below in before(phase):
        job_file(chosen, folder, folder / "model", name, below, steps=2)
    return minutes_between_checkpoints(job_file(chosen, folder, folder / "model", "uncut", phase, steps=20))


@pytest.mark.parametrize("phase", ["p1", "p2", "p3"])
def test_small_checkpoints_come_as_often_as_can_be(tmp_path: Path, phase: str) -> None:
    shutil.copytree(JOBS / "tiny" / "model", tmp_path / "model")

    assert minutes(tmp_path, phase=phase, words=100) == LEAST_MINUTES


def test_large_ones_leave_time_to_write_them(tmp_path: Path) -> None:
    config_of(SHAPES["meta-llama/Llama-3.1-8B"]).save_pretrained(tmp_path / "model")

    several, many = (minutes(tmp_path, phase="p3", words=words) for words in (15_000, 200_000))

    assert LEAST_MINUTES < minutes(tmp_path, phase="p1", words=15_000) < several < MOST_MINUTES == many
