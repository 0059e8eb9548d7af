"""Trials on the tiny model: every way learns, is measured on the same bytes, and a crew keeps what it found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bench.studies import forms, levers, quality, questions
from bench.trials import crew, regression
from bench.trials.held_out import NEW
from bench.trials.lab import Lab, material
from bench.trials.learners import Ours
from bench.trials.study import SEEDS, Scale, best, outcomes, reported, seeded, validation
from bench.trials.trial import Trial, from_key, learner_of, run

SCALE = Scale(lab="tiny", steps=4, batch=2, seq_len=32, exploring=2)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """On the beginning of its text."""
    scratch = tmp_path_factory.mktemp("lab")
    found, text = material("tiny", scratch), scratch / "beginning.txt"
    text.write_text(found.text_path.read_text("utf-8")[:60_000], "utf-8")
    return Lab(replace(found, text_path=text), "cpu", scratch)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "ROUNDS", 6)


@pytest.fixture(scope="module")
def untouched(lab: Lab) -> dict[str, Any]:
    return run(lab, SCALE.untouched()).figures


WAYS = {
    "shared rows": {},
    "separate, calibrated": quality.SEPARATE,
    "regression first": {**quality.SEPARATE, "regress": "first"},
    "regression last": {**quality.SEPARATE, "regress": "last"},
    "all levers": {"pull": 1.0, "by_frequency": -0.5, "spelling": 0.1, "rare_twice": 2, "own_steps": True},
    "rows in bf16": {"held": "bf16 drawn"},
    "masked": {"way": "masked", "optimizer": "adamw", "lr": 1e-3},
    "peft": {"way": "peft", "optimizer": "adamw", "lr": 1e-3},
    "overlay": {"way": "overlay", "match": "anywhere", "rows": "input"},
    "adapters alone": {"way": "lora", "match": "none", "lr": 1e-3},
    "adapters beside": {"way": "lora", "beside": True, "lr": 1e-3},
    "adapters after": {"way": "lora", "lr": 1e-3},
    "forms share": {"forms": "shared"},
    "forms apart": {"forms": "separate", "line_breaks": "join"},
    "bf16 body": {"body": "bf16"},
}
# each of them is a mixture of others, or stands in a test of its own below
ALIKE = {
    "separate, calibrated", "regression first", "regression last", "adapters alone", "adapters after", "forms apart",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # what PEFT asks
@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.sweep) if way in ALIKE else way for way in WAYS])
def test_every_way_is_trained_and_measured_on_the_bytes_of_the_untouched_model(lab, untouched, way):
    trial = SCALE.trial(**WAYS[way], start_too=True)
    found = run(lab, trial).figures

    assert found["after"]["bytes"] == untouched["after"]["bytes"]
    assert found["before"]["nats"] != found["after"]["nats"]
    assert len(found["curve"]) == 4
    assert found["after"]["english_base"] > 0


def test_ways_that_keep_the_body_keep_published_english(lab, untouched):
    found = run(lab, SCALE.trial(**quality.SEPARATE)).figures

    assert found["after"]["english_base"] == untouched["after"]["english_base"]


def test_a_longer_trial_is_better_and_regression_better_than_its_start(lab, untouched):
    def bits(**more: Any) -> float:
        found = reported([run(lab, replace(SCALE.trial(**quality.SEPARATE, **more), steps=20)).figures])
        value = found.bits(NEW)
        assert value is not None
        return value

    plain, regressed = bits(lr=1e-9), bits(lr=1e-9, regress="first")
    none = reported([untouched]).bits(NEW)

    assert bits(lr=5e-3) < plain < none
    assert regressed < plain


def test_regression_moves_rare_words_less(lab):
    trial = SCALE.trial(**quality.SEPARATE, regress="first")
    cutting = lab.cutting(trial.cut)
    start, end = (learner_of(lab, replace(trial, regress=how), cutting, lab.model()) for how in ("no", "first"))
    assert isinstance(start, Ours)
    assert isinstance(end, Ours)
    went = (end.installed.head.rows - start.installed.head.rows).detach().norm(dim=1)
    counts = torch.from_numpy(cutting.data.blocks.occurrences(cutting.id_map.n_ids)[cutting.id_map.first_new_id :])
    order = counts.argsort()

    assert went[order[:10]].mean() < went[order[-10:]].mean()


def test_a_key_says_a_trial_whole():
    for trial in (Trial(), SCALE.trial(forms="shared", lr=1e-3), SCALE.untouched()):
        assert from_key(trial.key) == trial


def test_a_crew_runs_what_is_asked_once_and_goes_on_where_it_was(tmp_path):
    one, other = SCALE.untouched(), replace(SCALE.trial(), keep_rows=True)
    broken = replace(SCALE.trial(), output="first_piece", rows="input", regress="first")
    out = tmp_path / "trials.jsonl"

    def plan(found):
        return [one, broken, other] if one.key in found else [one]

    found = crew.work(plan, out, device="cpu", processes=1, seconds=1e6)
    again = crew.work(plan, out, device="cpu", processes=1, seconds=0)

    assert list(found) == [one.key, broken.key, other.key]
    assert "cannot be fitted alone" in found[broken.key]["error"]
    assert list(again) == [one.key, other.key], "what failed would be tried again"
    assert (tmp_path / "trials.rows" / crew.rows_file(other)).exists()


def made_up(trial: Trial, untouched: dict[str, Any]) -> dict[str, Any]:
    """An outcome in which a higher rate is better."""
    factor = 1.0 if trial.way == "none" else 1.0 - trial.lr
    after = {**untouched["after"]}
    after["nats"] = [[one * factor for one in row] for row in after["nats"]]
    more = {"chat": [{"nats": 1.0, "same": 1.0, "ends": 1.0}] * 3, "after_rows": after, "before": after}
    return {"after": after, "new_ids": 7, "seconds": 1, "curve": [2.0, 1.0], "moved": 0.1, **more}


@pytest.mark.parametrize("study", [quality, forms, levers, questions])
def test_a_study_is_whole_once_its_plan_asks_for_nothing_more(study, untouched):
    scale = replace(SCALE, lab="smollm2")
    found: dict[str, Any] = {}
    while missing := [trial for trial in study.plan(found, scale) if trial.key not in found]:
        found[missing[0].key] = made_up(missing[0], untouched)

    result = study.summary(found, scale)
    parts = [part for part in ("bodies", "held", "chat", "vocabularies") if part in result] or ["", "short", "printed"]
    for part in parts:
        lines = study.table(result, part)
        assert lines
        assert len({tuple(line) for line in lines}) == 1, "every line has the same columns"


def test_a_contender_is_entered_as_validation_text_has_it_best_and_reported_on_other_text(untouched):
    tried = quality.variants("PEFT trainable tokens", SCALE)
    found = {SCALE.explored(one).key: made_up(SCALE.explored(one), untouched) for one in tried}
    chosen = best(found, tried, SCALE)

    assert chosen is not None
    assert chosen.lr == max(one.lr for one in tried)
    assert validation(found[SCALE.explored(chosen).key], "all") > 0
    assert outcomes(found, seeded(chosen)) is None, "no exploratory run is reported"
    assert [trial.seed for trial in seeded(chosen)] == list(SEEDS)


@pytest.mark.parametrize("name", quality.CONTENDERS)
def test_contenders_have_as_many_exploratory_runs_and_four_rates(name):
    tried = quality.variants(name, SCALE)

    assert len({one.key for one in tried}) == 8
    assert len({one.lr for one in tried}) == 4
