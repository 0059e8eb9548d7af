from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from runner.queue.rows import Metric
from runner.screen import snapshot
from runner.screen.build import build_snapshot
from runner.screen.daemon_note import DaemonNote
from runner.screen.database import DatabaseView
from runner.screen.home import Process
from runner.screen.narration import scene
from runner.states import State, Wish
from tests.unit.runner.moments import (
    NOW,
    attempt,
    checkpoint,
    evaluation,
    heartbeat,
    job,
    log_state,
    metrics,
    nothing,
    running_moment,
    running_surroundings,
    session,
)


def _picture(moment=None, around=None):
    return build_snapshot(moment or running_moment(), around or running_surroundings(), NOW)


def test_steps_are_trained_saved_and_durable_apart():
    (one,) = _picture().jobs

    assert (one.trained, one.saved, one.durable) == (105, 104, 100)


def test_a_cut_costs_what_is_not_durable_and_a_crash_what_is_not_saved():
    (detail,) = _picture().details

    # Steps 101 to 105 are beyond the ledger: five times the recent 2 s; beyond the saved 104 there is one.
    assert detail.lost_if_machine_goes_seconds == 10.0
    assert detail.lost_if_trainer_goes_seconds == 2.0


def test_steps_in_the_ledger_cost_what_they_took():
    slow = [*metrics(count=90), *(dataclasses.replace(one, seconds=60.0) for one in metrics()[90:])]
    moment = running_moment(metrics={"a": slow}, checkpoints={"a": [checkpoint(90)]})

    (detail,) = _picture(moment, running_surroundings(heartbeats={"a": heartbeat(100, saved_step=90)})).details

    assert detail.lost_if_machine_goes_seconds == 600.0


def test_without_a_trainer_only_what_was_saved_counts_as_trained():
    (one,) = _picture(running_moment(), running_surroundings(trainers={})).jobs

    assert (one.trained, one.saved) == (104, 104)


def test_a_trainer_that_still_loads_stands_where_it_will_go_on():
    loading = heartbeat(0, state="loading", saved_step=None)

    picture = _picture(around=running_surroundings(heartbeats={"a": loading}))

    assert picture.jobs[0].trained == 104
    assert picture.details[0].next_evaluation == 200


@pytest.mark.parametrize("heartbeats", [{}, {"a": heartbeat(105)}], ids=["the first one", "one after another"])
def test_a_trainer_that_has_not_said_anything_yet_is_starting_and_has_not_ended(heartbeats):
    moment = running_moment(attempts={"a": [attempt("a", 2)]})

    picture = _picture(moment, running_surroundings(trainers={}, heartbeats=heartbeats))

    assert picture.details[0].activity == "starting"
    assert next(line for label, line in scene(picture) if label == "now")[0].startswith("a: its trainer is starting")


def test_a_quarantined_checkpoint_counts_for_nothing():
    moment = running_moment(checkpoints={"a": [checkpoint(60), checkpoint(100, quarantined=True)]})

    (one,) = _picture(moment).jobs

    assert one.durable == 60


def test_the_time_to_go_counts_steps_and_evaluations_in_hours_and_sessions():
    sessions = [session(1, started_at=0.0, ended_at=600.0), session(2)]  # one is over

    picture = _picture(running_moment(sessions=sessions))

    (detail,) = picture.details
    # 395 steps of 2 s; evaluations at 200, 300, 400 and the end, 10 s each.
    assert detail.eta_seconds == 395 * 2.0 + 4 * 10.0
    assert picture.session is not None
    assert picture.session.usual_minutes == 10.0
    assert detail.eta_sessions == 2
    assert (detail.next_evaluation, detail.next_milestone) == (200, 200)


def test_how_long_sessions_last_is_not_said_before_one_is_over():
    picture = _picture()

    assert picture.session is not None
    assert (picture.session.usual_minutes, picture.details[0].eta_sessions) == (None, None)


def test_the_length_of_a_job_in_epochs_may_be_unknown():
    moment = running_moment(jobs=[job(state=State.RUNNING, steps=None)], segments={}, pieces={})

    (detail,) = _picture(moment).details

    assert (detail.eta_seconds, detail.segment, _picture(moment).jobs[0].segments) == (None, None, 0)


@pytest.mark.parametrize(
    ("evaluations", "rows", "says"),
    [
        ([(0, 8.0), (100, 7.0)], 100, "learning: down 1.00 nats in 1 evaluation"),
        ([(0, 8.0), (100, 7.0), (200, 7.5), (300, 7.6)], 100, "no new best for 2 evaluations"),
        ([(0, 5.3336), (100, 5.3335), (200, 5.3334)], 100, "flat: 0.0002 nats in 2 evaluations"),
        ([(0, 8.0)], 100, "learning: training loss down 0.75 nats"),
        ([], 5, "too early to say whether it learns"),
        ([(0, math.nan), (100, math.nan)], 100, "learning: training loss down 0.75 nats"),
    ],
)
def test_whether_it_learns_is_said_with_the_evidence(evaluations, rows, says):
    moment = running_moment(
        evaluations={"a": [evaluation(step, loss) for step, loss in evaluations]}, metrics={"a": metrics(count=rows)}
    )

    assert _picture(moment).details[0].learning == says


def test_gradients_that_are_all_zero_are_called_out():
    dead = [dataclasses.replace(one, grad_norm=0.0) for one in metrics()]

    assert _picture(running_moment(metrics={"a": dead})).details[0].learning.startswith("not learning")


def test_every_waiting_job_has_its_reason():
    jobs = [
        job("a", state=State.RUNNING),
        job("b", number=2, after="a"),
        job("c", number=3, state=State.HELD, reason="hold on request"),
        job("d", number=4, state=State.FAILED, reason="diverged again", remedy=""),
        job("e", number=5, after="d"),
        job("f", number=6, not_before=NOW + 240, reason="oom: no room"),
        job("g", number=7),
        job("h", number=8, after="c"),
        job("i", number=9),
    ]
    logs = {"g": log_state("g", problem="Drive is full", remedy="make room")}

    picture = _picture(running_moment(jobs=jobs, logs=logs))

    says = {one.name: one.says for one in picture.jobs}
    assert says["b"] == "waits for a"
    assert says["c"] == "held by you"
    assert says["d"] == "diverged again"
    assert says["e"] == "blocked: d failed"
    assert says["f"] == "tries again in 4 min: oom: no room"
    assert says["g"] == "Drive is full"
    assert says["h"] == "waits for c, which is held"
    assert says["i"] == "waits for its turn"
    commands = {need.job: need.command for need in picture.needs}
    retry = "wake2vec-runner retry d"
    assert commands == {"d": retry, "e": retry, "g": "make room"}


def test_what_keeps_a_job_from_the_store_names_it_once():
    logs = {"g": log_state("g", problem="g: another job has that name", remedy="wake2vec-runner cancel g")}

    picture = _picture(running_moment(jobs=[job("g")], logs=logs))

    assert picture.jobs[0].says == "another job has that name"
    assert [need.cause for need in picture.needs] == ["g: another job has that name"]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"wish": Wish.CANCEL}, "cancel asked for: it saves first"),
        ({"finishing": True}, "trained; its results are on their way to the store"),
    ],
)
def test_a_running_job_tells_what_was_asked_of_it(extra, says):
    (one,) = _picture(running_moment(jobs=[job(state=State.RUNNING, **extra)])).jobs

    assert one.says == says


def test_without_a_runner_the_command_that_starts_one_is_given_once():
    picture = _picture(running_moment(), nothing())

    assert [need.command for need in picture.needs] == ["wake2vec-runner start"]
    assert not picture.runner.is_alive


def test_a_job_that_another_runner_took_over_says_so():
    picture = _picture(running_moment(logs={"a": log_state(fenced=True)}))

    assert "another runner has taken it over" in picture.jobs[0].says
    assert picture.needs[0].command == "wake2vec-runner start --take-over"


def test_a_failed_job_says_what_its_trainer_would_mend():
    (one,) = _picture(running_moment(jobs=[job(state=State.FAILED, reason="no words", remedy="give a list")])).jobs

    assert one.says == "no words; give a list"


def test_a_store_that_is_nearly_full_needs_a_person():
    note = DaemonNote(written_at=NOW, free_bytes=2 << 20)

    picture = _picture(around=running_surroundings(note=note))

    assert picture.store.room_for_checkpoints == 2
    assert [need.cause for need in picture.needs] == ["the store has room for 2 more checkpoints"]


def test_only_the_newest_checkpoint_waits_for_the_store():
    waiting = [checkpoint(100), checkpoint(102, durable=False), checkpoint(104, durable=False, size=5 << 20)]

    store = _picture(running_moment(checkpoints={"a": waiting})).store

    assert (store.waiting, store.waiting_bytes, store.last_durable_at) == (1, 5 << 20, NOW - 30)


def test_an_empty_home_is_an_empty_picture():
    picture = build_snapshot(DatabaseView(), nothing(), NOW)

    assert (picture.jobs, picture.details, picture.needs, picture.session) == ((), (), (), None)


def test_what_last_did_something_stays_in_focus_when_nothing_runs():
    jobs = [job("a", state=State.SUCCEEDED), job("b", number=2, state=State.FAILED), job("c", number=3)]

    assert [detail.job for detail in _picture(running_moment(jobs=jobs)).details] == ["b"]


def test_segments_done_are_the_durable_ones():
    (one,) = _picture(running_moment(pieces={"a": (3, 2, 600)})).jobs

    assert (one.segments_done, one.segments) == (2, 3)


def test_losses_that_are_no_numbers_leave_the_curve_drawable():
    broken = [*metrics(count=5), Metric(job="a", step=6, loss=math.nan, tokens=1, lr=1.0, grad_norm=None, seconds=None)]

    (detail,) = _picture(running_moment(metrics={"a": broken})).details

    assert all(math.isfinite(loss) for loss in detail.losses)


def test_a_long_run_keeps_a_curve_of_bounded_length():
    (detail,) = _picture(running_moment(metrics={"a": metrics(count=3000)})).details

    assert len(detail.losses) == 240


def test_the_picture_is_json():
    text = json.dumps(dataclasses.asdict(_picture()))

    table = json.loads(text)
    assert table["format"] == 1
    assert table["jobs"][0]["durable"] == 100
    assert table["details"][0]["memory"] == {"reserved_mib": 11_000, "peak_mib": 12_000, "total_mib": 15_000}


def test_a_trainer_that_outlived_its_daemon_is_watched():
    silent = heartbeat(written_at=NOW - 600)

    picture = _picture(around=running_surroundings(daemon=None, heartbeats={"a": silent}))

    assert "no heartbeat for 10 min" in picture.needs[0].cause
    assert picture.details[0].is_alive


def test_a_daemon_whose_lock_says_nothing_is_still_alive():
    picture = _picture(around=running_surroundings(daemon=Process(pid=0)))

    assert picture.runner.is_alive
    assert picture.runner.since_at is None


def test_the_page_on_the_status_names_every_field():
    page = (Path(__file__).parents[4] / "docs" / "status.md").read_text("utf-8")
    parts = [part for part in vars(snapshot).values() if dataclasses.is_dataclass(part)]

    named = {field.name for part in parts for field in dataclasses.fields(part)}
    assert {name for name in named if f"`{name}`" not in page} == set()
