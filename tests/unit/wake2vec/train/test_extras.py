"""Samples and film frames while a job trains: not a bit of it changes, and nothing they do can end it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import loop_for as any_loop
from tests.tiny import material_for, order_for, run_of
from tests.unit.wake2vec.train.test_attempt import asking_after, end, nothing
from tests.zygote import python
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.manifest import newest_verified, saved_steps
from wake2vec.contract.order import Order, fingerprint
from wake2vec.contract.rundir import RunDir
from wake2vec.phases.inputs import JobInputs
from wake2vec.show.geometry.film import read_film
from wake2vec.show.samples import read_samples
from wake2vec.train import extras as beside
from wake2vec.train.checkpoint import read_checkpoint
from wake2vec.train.loop import Loop
from wake2vec.train.stopping import Stop

TOKENS = 8
SHOWN = {"evaluate__samples": 2, "evaluate__samples_every_steps": 2}


def loop_for(material: JobInputs, stop: Stop | None = None) -> Loop:
    """One that writes short texts."""
    loop = any_loop(material, stop)
    loop.beside.tokens = TOKENS
    return loop


def an_order(folder: Path, name: str = "tiny", **changes: Any) -> Order:
    usual = {"train__steps": 6, "checkpoint__every_steps": 2, "evaluate__every_steps": 3}
    return order_for(folder, name=name, **{**usual, **SHOWN, **changes})


def frames(run: RunDir) -> list[int]:
    film = read_film(run)
    return sorted(int(step) for step in film["frames"]) if film else []


def samples(run: RunDir) -> list[tuple[int, int]]:
    return [(row.step, row.number) for row in read_samples(run)]


def notes(loop: Loop, event: str) -> list[str]:
    return [row["text"] for row in loop.progress.rows if row["kind"] == "event" and row["event"] == event]


def test_a_job_that_shows_its_way_ends_in_the_same_bits(tmp_path: Path) -> None:
    silent = loop_for(material_for(tmp_path, an_order(tmp_path, "silent", **dict.fromkeys(SHOWN, 0) | {
        "evaluate__samples_every_steps": 6,
    }), "silent"))  # fmt: skip
    silent.run_to_end(nothing)

    shown = loop_for(material_for(tmp_path, an_order(tmp_path)))
    shown.run_to_end(nothing)

    assert samples(run_of(tmp_path)) == [(2, 0), (2, 1), (4, 0), (4, 1)]
    assert samples(run_of(tmp_path, "silent")) == []
    assert end(shown) == end(silent)


def test_adapters_with_dropout_end_in_the_same_bits_too(tmp_path: Path) -> None:
    loop_for(material_for(tmp_path, order_for(tmp_path, name="p1", train__steps=2), "p1")).run_to_end(nothing)
    usual = {"train__steps": 4, "checkpoint__every_steps": 2, "evaluate__every_steps": 4}
    ends = {}
    for name, shown in (("silent", {}), ("shown", SHOWN)):
        order = order_for(tmp_path, of="tiny_p2", name=name, source=run_of(tmp_path, "p1"), **usual, **shown)
        assert order.training.lora.dropout > 0
        loop = loop_for(material_for(tmp_path, order, name))
        loop.run_to_end(nothing)
        ends[name] = end(loop)

    assert samples(run_of(tmp_path, "shown")) == [(2, 0), (2, 1)]
    assert ends["shown"] == ends["silent"]


def test_when_samples_are_written_decides_nothing(tmp_path: Path) -> None:
    order = an_order(tmp_path)
    without = order.job.model_copy(update={"evaluate": order.job.evaluate.model_copy(update=dict.fromkeys(
        ("samples", "samples_every_steps")))})  # fmt: skip

    assert fingerprint(without, order.inputs) == order.fingerprint


def test_samples_and_frames_survive_a_machine_and_show_nothing_beyond_the_resumed_step(tmp_path: Path) -> None:
    order, stop = an_order(tmp_path), Stop()
    material = material_for(tmp_path, order)
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=5)  # type: ignore[method-assign]
    first.run_to_end(nothing)
    run = run_of(tmp_path)
    assert (samples(run), frames(run)) == ([(2, 0), (2, 1), (4, 0), (4, 1)], [0, 2, 4])
    texts = [row.text for row in read_samples(run)]

    shutil.rmtree(run.checkpoint(5))
    at_4 = loop_for(material)
    assert (samples(run), frames(run)) == ([(2, 0), (2, 1), (4, 0), (4, 1)], [0, 2, 4])  # eval/ knew those of 4
    shutil.rmtree(run.evaluation)
    at_4 = loop_for(material)
    assert (samples(run), frames(run)) == ([(2, 0), (2, 1)], [0, 2, 4])  # a checkpoint comes before its own samples
    at_4.run_to_end(nothing)

    assert [row.text for row in read_samples(run)] == texts
    assert frames(run) == [0, 2, 4, 6]


def test_frames_and_samples_beyond_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    order = an_order(tmp_path)
    material = material_for(tmp_path, order)
    loop_for(material).run_to_end(nothing)
    run = run_of(tmp_path)
    for step in saved_steps(run):
        if step > 2:
            shutil.rmtree(run.checkpoint(step))

    loop_for(material)

    assert (samples(run), frames(run)) == ([(2, 0), (2, 1)], [0, 2])


def test_a_stop_ends_a_sample_at_once_and_the_next_attempt_goes_on_with_it(tmp_path: Path) -> None:
    order, stop = an_order(tmp_path, evaluate__samples=3), Stop()
    material = material_for(tmp_path, order)
    first = loop_for(material, stop)
    asked: list[int] = []

    def ask_in_the_second_text(**changes: Any) -> None:
        if changes.get("progress") is not None and first.pulse.now.state == "sampling":
            asked.append(1)
            if len(samples(material.run)) == 1:
                stop.ask("for this test")

    first.pulse.beat = watched(first.pulse.beat, ask_in_the_second_text)  # type: ignore[method-assign]
    result = first.run_to_end(nothing)
    drawn = len(asked)

    assert (result.outcome, result.saved_step) == ("yielded", 2)
    assert samples(material.run) == [(2, 0)]
    second = loop_for(material)
    second.run_to_end(nothing)
    assert samples(material.run) == [(step, number) for step in (2, 4) for number in range(3)]
    assert drawn == 1 + TOKENS + 1  # it begins; a whole text; one look in the next, which ends it


def watched(call: Any, see: Any) -> Any:
    def both(**changes: Any) -> None:
        call(**changes)
        see(**changes)

    return both


def test_a_near_deadline_leaves_the_samples_for_later(tmp_path: Path) -> None:
    material = material_for(tmp_path, an_order(tmp_path))
    stop = Stop()
    loop = loop_for(material, stop)

    def end_the_session(**changes: Any) -> None:
        if changes.get("state") == "sampling":
            stop._stop_by = 0.0  # long ago

    loop.pulse.beat = watched(loop.pulse.beat, end_the_session)  # type: ignore[method-assign]
    result = loop.run_to_end(nothing)

    assert (result.outcome, result.cause, samples(material.run)) == ("yielded", "the session ends soon", [])


@pytest.mark.parametrize(
    "error",
    [pytest.param(MemoryError("no room"), marks=pytest.mark.sweep), TypeError("this model takes no cache")],
)
def test_samples_that_cannot_be_written_are_noted_and_training_goes_on(tmp_path: Path, error: Exception) -> None:
    material = material_for(tmp_path, an_order(tmp_path))
    loop = loop_for(material)

    class Broken:
        training = True
        generation_config = None
        config = loop.prepared.model.config

        def eval(self) -> None: ...
        def train(self, mode: bool) -> None: ...
        def __call__(self, **options: Any) -> Any:
            raise error

    loop.beside._prepared = replace(loop.prepared, model=Broken())
    result = loop.run_to_end(nothing)

    assert (result.outcome, loop.progress.step) == ("completed", 6)
    assert notes(loop, "samples") == [f"samples left out: {type(error).__name__}: {error}"] * 2


def test_a_film_that_cannot_be_written_is_noted_and_training_goes_on(tmp_path: Path) -> None:
    material = material_for(tmp_path, an_order(tmp_path, evaluate__samples=0))
    loop = loop_for(material)
    (material.run.evaluation / "film.json").mkdir(parents=True)

    assert loop.run_to_end(nothing).outcome == "completed"
    assert saved_steps(material.run)[0] == 6
    assert notes(loop, "film")[0].startswith("film left out: ")


def test_what_a_checkpoint_carries_cannot_stop_a_resume(tmp_path: Path) -> None:
    material = material_for(tmp_path, an_order(tmp_path))
    loop = loop_for(material)

    loop.beside.restore({"samples": 7, "film": {"frames": {"no step": 1}}}, 2)

    assert [text.split(":")[0] for text in notes(loop, "samples") + notes(loop, "film")] == [
        "samples left out",
        "film left out",
    ]


def test_a_process_that_dies_in_its_samples_tries_twice_and_then_trains_on(tmp_path: Path) -> None:
    order = an_order(tmp_path)
    run = run_of(tmp_path)
    write_json(run.order, order.model_dump(mode="json"))
    command = python("wake2vec", run.root)
    deadly = {**os.environ, "WAKE2VEC_FAILPOINTS": "sampling.token=kill"}

    for _ in range(beside.TRIES):
        assert subprocess.run(command, env=deadly, capture_output=True, check=False).returncode == -signal.SIGKILL
        assert saved_steps(run)[0] == 2
    done = loop_for(material_for(tmp_path, order))
    done.run_to_end(nothing)

    assert notes(done, "samples")[0] == "samples left out: 2 attempts ended in the middle of them"
    assert samples(run) == [(4, 0), (4, 1)]
    assert not (run.evaluation / "sampling.json").exists()


def test_many_milestones_give_a_film_of_some_of_them(tmp_path: Path) -> None:
    steps = 2 * beside.MOST_FRAMES + 1
    material = material_for(tmp_path, an_order(tmp_path, train__steps=steps, checkpoint__every_steps=1))
    loop = loop_for(material)

    for step in range(steps + 1):
        loop.beside.add_frame(step)

    assert frames(material.run) == [*range(0, steps, 3), steps]


def test_a_frame_in_a_checkpoint_is_of_that_checkpoint(tmp_path: Path) -> None:
    order = an_order(tmp_path, evaluate__samples=0)
    material = material_for(tmp_path, order)
    loop_for(material).run_to_end(nothing)

    found = newest_verified(material.run, order.fingerprint, [])
    assert found
    carried = read_checkpoint(*found).state["film"]
    assert carried == read_film(material.run)
    assert sorted(int(step) for step in carried["frames"]) == [0, 2, 4, 6]


def test_a_job_whose_rows_stand_still_has_no_film(tmp_path: Path) -> None:
    first = material_for(tmp_path, order_for(tmp_path, name="p1", train__steps=2), "p1")
    loop_for(first).run_to_end(nothing)
    order = order_for(tmp_path, of="tiny_p2", name="p2", source=run_of(tmp_path, "p1"), train__steps=2)
    loop_for(material_for(tmp_path, order, "p2")).run_to_end(nothing)

    assert frames(run_of(tmp_path, "p1")) == [0, 2]
    assert read_json(run_of(tmp_path, "p2").evaluation / "film.json") is None


@pytest.mark.parametrize("forms", ["shared", pytest.param("separate", marks=pytest.mark.sweep)])
def test_the_film_shows_the_words_and_not_their_forms(tmp_path: Path, forms: str) -> None:
    order = order_for(tmp_path, vocab__forms=forms, train__steps=2)
    material = material_for(tmp_path, order)
    loop = loop_for(material)

    loop.run_to_end(nothing)

    assert notes(loop, "film") == []
    film = read_film(material.run)
    assert film is not None
    assert len(film["words"]) == len(material.id_map.words) < material.id_map.n_new


def test_a_process_that_dies_while_it_measures_tries_twice_and_is_done_without(tmp_path: Path) -> None:
    order = an_order(tmp_path, evaluate__hopes=True, evaluate__samples=0)
    run = run_of(tmp_path)
    write_json(run.order, order.model_dump(mode="json"))
    command = python("wake2vec", run.root)
    deadly = {**os.environ, "WAKE2VEC_FAILPOINTS": "hopes.tick=kill"}

    for _ in range(beside.TRIES):
        assert subprocess.run(command, env=deadly, capture_output=True, check=False).returncode == -signal.SIGKILL
        assert run.final.is_dir()
        assert len(list(run.evaluation.glob("partial*.json"))) == 3  # no ledger is durable before the end
    subprocess.run(command, env=deadly, capture_output=True, check=True)

    assert read_json(run.result)["outcome"] == "completed"
    assert not list(run.evaluation.glob("partial*.json"))
    assert not (run.evaluation / "hopes.json").exists()
    told = [row for row in run.metrics.read_text("utf-8").splitlines() if '"hopes"' in row]
    assert len(told) == 1
    assert "left out: 2 attempts ended in the middle" in told[0]


def test_a_stop_at_the_end_leaves_the_figures_out_and_the_job_done(tmp_path: Path) -> None:
    stop = Stop()
    loop = loop_for(material_for(tmp_path, an_order(tmp_path, evaluate__hopes=True)), stop)
    assert loop.run_to_end(nothing).outcome == "completed"
    stop.ask("for this test")

    loop.hopes()

    assert not (run_of(tmp_path).evaluation / "hopes.json").exists()
    assert not (run_of(tmp_path).evaluation / "measuring.json").exists()
    assert notes(loop, "hopes") == []
