"""What may change while a job lives."""

import pytest

from runner.errors import IllegalTransition, RunnerError
from runner.queue import checkpoints, jobs, ledger
from runner.queue.changing import changeable, extend, set_value
from runner.states import State, Wish
from tests.simulated import Clock, Home
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.order import fingerprint
from wake2vec.train.schedule import horizon, learning_rate


def add(queue, **more):
    spec = job_spec("a", **more)
    return jobs.add_job(queue, spec, [CORPUS], fingerprint(spec, [CORPUS]), 1.0)


def test_cadence_and_budget_change_and_the_segments_follow(queue):
    add(queue)
    checkpoints.mark_durable(queue, "a", 200, manifest_sha256="0", size=1, now=2.0)

    set_value(queue, "a", "checkpoint.every_steps", 100, 3.0)
    job = set_value(queue, "a", "runner.priority", 7, 3.0)

    planned = [(one.first_step, one.last_step) for one in jobs.list_segments(queue, "a")]
    assert planned == [(0, 200), (200, 300), (300, 400), (400, 500)]
    assert job.priority == 7
    assert [one.change["key"] for one in ledger.list_regimes(queue, "a")] == [
        "checkpoint.every_steps",
        "runner.priority",
    ]


def test_cadence_changes_also_when_every_step_is_durable_and_the_end_is_no_milestone(queue):
    add(queue)
    checkpoints.mark_durable(queue, "a", 500, manifest_sha256="0", size=1, now=2.0)

    job = set_value(queue, "a", "checkpoint.every_steps", 300, 3.0)

    assert job.spec.checkpoint.every_steps == 300
    assert [one.last_step for one in jobs.list_segments(queue, "a")] == [200, 400, 500]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.lr", 0.1, "train.lr decides the result"),
        ("vocab.dtype", "bf16", "vocab.dtype decides the result"),
        ("name", "b", "name decides the result"),
        ("train.steps", 900, "cannot change while a job lives; `extend a STEPS` gives it more"),
        ("priority", 3, "there is no key priority; did you mean runner.priority\\? What may change is checkpoint"),
        ("train.speed", 1, "there is no key train.speed; what may change is checkpoint"),
        ("checkpoint.every_steps", 0, "greater than or equal to 1, got 0"),
        ("checkpoint", 5, "checkpoint"),
    ],
)
def test_what_would_change_the_result_is_refused(queue, key, value, words):
    before = add(queue)

    with pytest.raises(RunnerError, match=words):
        set_value(queue, "a", key, value, 3.0)

    assert jobs.get_job(queue, "a") == before
    assert ledger.list_regimes(queue, "a") == []


def test_a_frozen_fingerprint_outlives_every_change(queue):
    before = add(queue)

    set_value(queue, "a", "train.micro_batch", 2, 3.0)
    job = extend(queue, "a", 700, 3.0, from_step=100)

    assert job.fingerprint == before.fingerprint == fingerprint(job.spec, [CORPUS])
    assert "train.micro_batch" in changeable()


def test_an_extension_keeps_the_past_of_the_schedule(queue):
    add(queue)

    job = extend(queue, "a", 1000, 3.0, from_step=300)

    def rate(step, extensions):
        total = horizon(step, 500, extensions)
        return learning_rate(step, peak=1.0, total=total, warmup_steps=20, kind="cosine")

    extended = job.spec.train.extended
    assert job.steps == 1000
    assert [rate(step, extended) for step in range(300)] == [rate(step, []) for step in range(300)]
    assert rate(499, extended) > rate(499, [])
    assert rate(999, extended) < 1e-4
    assert jobs.list_segments(queue, "a")[-1].last_step == 1000


def test_fewer_steps_and_a_cancelled_job_are_refused(queue):
    add(queue)

    with pytest.raises(RunnerError, match="extend to more than that"):
        extend(queue, "a", 500, 3.0, from_step=0)
    jobs.set_wish(queue, "a", Wish.CANCEL, 4.0)
    with pytest.raises(IllegalTransition, match="`wake2vec-runner retry a` first"):
        extend(queue, "a", 900, 5.0, from_step=0)


def test_changes_come_back_with_the_job_on_another_machine(tmp_path):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    home.add(job_spec("a", steps=30, checkpoint={"every_steps": 10}))
    home.until(lambda: home.trainers.living)
    set_value(home.queue, "a", "checkpoint.every_steps", 5, home.clock.now)
    extend(home.queue, "a", 40, home.clock.now, from_step=10)
    home.train(10)
    home.rounds(3)
    home.lose()

    job = home.job()
    assert job.steps == 40
    assert job.spec.checkpoint.every_steps == 5
    assert [one.steps for one in job.spec.train.extended] == [40]
    home.queue.close()


def test_a_trainer_that_reached_its_old_end_is_started_again_for_the_rest(tmp_path):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    home.add(job_spec("a", steps=30, checkpoint={"every_steps": 10}))
    home.until(lambda: home.trainers.living)
    extend(home.queue, "a", 40, home.clock.now, from_step=10)
    home.train(30)
    home.until(lambda: home.trainers.living)

    assert home.outcomes()[0] == "yielded"
    assert home.state() == str(State.RUNNING)
    assert home.trainer.step == 30
    home.queue.close()
