from __future__ import annotations

import dataclasses

import pytest

from runner.forecast import checkpoint_bytes, forecast, load_of
from runner.jobfile.read import read_job
from tests.unit.test_jobs import JOBS, MODELS
from wake2vec.contract.budget import CARDS
from wake2vec.contract.models.model_shapes import known_shape

T4 = CARDS["t4"]
LARGE = [model for model in MODELS if model not in ("demo", "tiny")]


def _foretold(name, card=T4, *, words=44_000, **train):
    spec = read_job(JOBS / f"{name}.toml")
    assert spec.train is not None
    assert spec.model is not None
    spec = spec.model_copy(update={"train": spec.train.model_copy(update=train)})
    shape = known_shape(spec.model.base)
    assert shape is not None
    return forecast(spec, load_of(spec, shape, words), card)


@pytest.mark.parametrize("name", [f"{model}_{phase}" for model in LARGE for phase in ("p1", "p2")])
def test_every_job_that_comes_with_the_project_fits_a_t4_with_its_context_whole(name):
    one = _foretold(name)

    assert one.fits
    assert one.plan.block_splits == 1


def test_the_fastest_fitting_plan_is_chosen():
    large, small = _foretold("qwen_p1", CARDS["h100"]), _foretold("qwen_p1")

    assert large.plan.micro_batch > small.plan.micro_batch
    assert large.step_seconds < small.step_seconds


def test_what_the_job_file_fixes_is_kept():
    one = _foretold("llama1b_p1", micro_batch=2, layers="checkpoint")

    assert (one.plan.micro_batch, one.plan.layers) == (2, "checkpoint")


def test_where_nothing_fits_the_leanest_is_shown_and_said_not_to_fit():
    tiny_card = dataclasses.replace(T4, memory_gib=2.0)

    one = _foretold("qwen_p1", tiny_card)

    assert not one.fits
    assert one.needed_gib < _foretold("qwen_p1").needed_gib


def test_a_forbidden_shorter_context_is_never_planned():
    tiny_card = dataclasses.replace(T4, memory_gib=2.0)

    assert _foretold("qwen_p1", tiny_card, allow_shorter_context=False).plan.block_splits == 1


def test_hours_follow_from_steps_and_are_unknown_for_epochs():
    one = _foretold("qwen_p1")

    assert one.hours == pytest.approx(1300 * one.step_seconds / 3600)
    assert _foretold("tinyllama_p2").hours is None


@pytest.mark.parametrize(
    ("family", "paths"), [("qwen2", {"lean", "checkpoint", "offload"}), ("gemma2", {"autograd", "recompute"})]
)
def test_a_family_that_is_not_written_out_is_foretold_on_the_librarys_layers(family, paths):
    spec = read_job(JOBS / "llama1b_p1.toml")
    shape = dataclasses.replace(known_shape("meta-llama/Llama-3.2-1B"), family=family)

    assert forecast(spec, load_of(spec, shape, 44_000), T4).plan.layers in paths


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
@pytest.mark.parametrize("name", ["qwen_p1", "llama8b_p3"])
def test_a_checkpoint_with_rows_in_16_bits_is_smaller_by_half_of_the_rows(name, optimizer):
    spec = read_job(JOBS / f"{name}.toml")
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"optimizer": optimizer})})
    shape = known_shape(spec.model.base)

    wide, narrow = (checkpoint_bytes(spec, shape, 44_223, row_bytes) for row_bytes in (4, 2))

    assert wide - narrow == 2 * load_of(spec, shape, 44_223).trained_row_sets * 44_223 * shape.width
