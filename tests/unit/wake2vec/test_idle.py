"""Training that trains nothing ends as that, never as a success."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import loop_for, material_for, order_for
from wake2vec.__main__ import failure
from wake2vec.contract.errors import InputError, NothingTrains
from wake2vec.contract.rundir import RunDir
from wake2vec.data.seen_words import SeenWords
from wake2vec.phases.inputs import require_met
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.loop import IDLE_STEPS
from wake2vec.train.movement import require_movement


def nothing() -> None:
    pass


def test_rows_that_have_not_moved_at_the_end_are_a_failure_that_names_its_remedy(tmp_path: Path) -> None:
    order = order_for(tmp_path, train__steps=2, train__lr=1e-30, evaluate__every_steps=2)
    loop = loop_for(material_for(tmp_path, order))

    with pytest.raises(NothingTrains, match="nothing moved in each of 2 steps") as told:
        loop.run_to_end(nothing)

    pulse = HeartbeatWriter(loop.run, 1)
    pulse.beat(state="training")
    result = failure(told.value, order, pulse)
    assert (result.outcome, result.where) == ("failed", "nothing")
    assert "train.lr" in result.remedy


def test_a_gradient_of_exactly_zero_ends_a_long_job_early(tmp_path: Path) -> None:
    loop = loop_for(material_for(tmp_path, order_for(tmp_path, train__steps=4, evaluate__every_steps=4)))
    loop.progress.rows += [{"kind": "step", "step": step, "grad_norm": 0.0} for step in range(IDLE_STEPS)]

    with pytest.raises(NothingTrains, match=f"gradient was exactly 0 in each of {IDLE_STEPS} steps"):
        require_movement(loop.progress.rows, "grad_norm")
    loop.progress.rows[-1]["grad_norm"] = 1e-9
    require_movement(loop.progress.rows, "grad_norm")


def test_a_frozen_text_that_cannot_be_used_is_told_apart_from_what_a_retry_mends(tmp_path: Path) -> None:
    order = order_for(tmp_path)
    corpus = next(item for item in order.inputs if item.role == "corpus")
    text = Path(order.inputs_folder) / corpus.sha256
    told = [
        failure(
            InputError(place, "is too short", "give a longer text"), order, HeartbeatWriter(RunDir(root=tmp_path), 1)
        )
        for place in (text, tmp_path / "tokenizer")
    ]

    assert [result.where for result in told] == ["inputs", "setup"]
    assert (told[0].cause, told[0].remedy) == (f"{corpus.name}: is too short", "give a longer text")


def test_a_job_whose_words_no_step_reads_ends_before_its_first_and_names_the_persons_file(tmp_path: Path) -> None:
    order = order_for(tmp_path)
    material = material_for(tmp_path, order)
    never = SeenWords(
        material.blocks, batch=2, seed=1, first_new_id=material.id_map.n_ids, n_new=3
    )  # ids that stand nowhere
    lexicon = next(item for item in order.inputs if item.role == "lexicon")

    with pytest.raises(NothingTrains, match="new words stands in what the 100,000,000 steps read") as told:
        require_met(never, 10**8, Path(order.inputs_folder) / lexicon.sha256, material.id_map)

    result = failure(told.value, order, HeartbeatWriter(material.run, 1))
    assert result.cause.startswith("lexicon.txt: none of its")
    assert lexicon.sha256 not in result.cause
    assert (result.where, bool(result.remedy)) == ("nothing", True)
