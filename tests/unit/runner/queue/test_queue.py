"""Jobs, claims, attempts, checkpoints and the ledger in the database."""

import json
import sqlite3
import threading

import pytest
from sqlalchemy import insert, update

from runner.errors import DatabaseCorrupt, HomeUnusable, IllegalTransition, JobExists, UnknownJob
from runner.queue import attempts, checkpoints, jobs, ledger, tables, waiting
from runner.queue.database import open_queue
from runner.queue.sqlite import Aside, check_integrity, copy_database, set_aside
from runner.queue.tables import segments
from runner.queue.view import see
from runner.states import PLANNED_AHEAD, Change, Outcome, State, Verdict, Wish
from tests.unit.runner.conftest import CORPUS, job_spec
from wake2vec.contract.order import InputFile


def add(queue, name="a", fingerprint=None, now=1.0, **spec):
    return jobs.add_job(queue, job_spec(name, **spec), [CORPUS], fingerprint or f"print-{name}", now)


def open_session(queue, machine="m1", now=1.0):
    return attempts.open_session(queue, machine=machine, platform="plain", gpu="T4", started_at=now, now=now)


def claim(queue, name="a", now=2.0, gpu=0):
    session = open_session(queue)
    return attempts.claim(queue, name, session=session.id, gpu=gpu, first_step=0, now=now)


def close(queue, attempt, change, outcome=Outcome.YIELDED, now=3.0, **verdict):
    verdict = Verdict(change=change, **verdict)
    attempts.close_attempt(queue, attempt, verdict, now, outcome=outcome, last_step=7, kept_step=7)


def mark_durable(queue, step, *, now):
    checkpoints.mark_durable(queue, "a", step, manifest_sha256=str(step), size=5, now=now)


def test_a_job_keeps_its_spec_and_inputs_and_gets_segments(queue):
    job = add(queue)

    assert job.state is State.QUEUED
    assert job.spec == job_spec("a")
    assert job.inputs == [CORPUS]
    planned = [(segment.first_step, segment.last_step) for segment in jobs.list_segments(queue, "a")]
    assert planned == [(0, 200), (200, 400), (400, 500)]


def test_a_job_measured_in_epochs_gets_its_segments_when_its_length_is_known(queue):
    add(queue, steps=None)
    assert jobs.list_segments(queue, "a") == []

    jobs.set_steps(queue, "a", 250)
    jobs.set_steps(queue, "a", 999)

    assert [segment.last_step for segment in jobs.list_segments(queue, "a")] == [200, 250]
    assert jobs.get_job(queue, "a").steps == 250


def test_a_name_is_given_once(queue):
    add(queue)

    with pytest.raises(JobExists, match="a job of that name is queued"):
        add(queue, fingerprint="other")


def test_the_same_work_under_another_name_needs_a_word(queue):
    add(queue, fingerprint="same")

    with pytest.raises(JobExists, match="--again"):
        add(queue, "b", fingerprint="same")
    jobs.add_job(queue, job_spec("b"), [CORPUS], "same", 1.0, again=True)

    assert [job.name for job in jobs.list_jobs(queue)] == ["a", "b"]


def test_the_same_outline_with_other_weights_is_other_work(queue):
    model = InputFile(role="model", name="model", sha256="a" * 64, size=1, weights="b" * 64)
    others = model.model_copy(update={"weights": "c" * 64})
    jobs.add_job(queue, job_spec("a"), [model], "same", 1.0)
    jobs.add_job(queue, job_spec("b"), [others], "same", 1.0)

    with pytest.raises(JobExists, match="c: b is the same work under another name"):
        jobs.add_job(queue, job_spec("c"), [others], "same", 1.0)


def test_an_unknown_job_is_named_with_those_that_are_known(queue):
    add(queue)

    with pytest.raises(UnknownJob, match=r"b: there is no such job; known are a"):
        jobs.get_job(queue, "b")


def test_priority_goes_before_age_and_age_before_nothing(queue):
    add(queue, "old")
    add(queue, "new")
    add(queue, "urgent", runner={"priority": 5})

    assert [job.name for job in waiting.claimable(jobs.list_jobs(queue))] == ["urgent", "old", "new"]


def test_a_second_claim_of_a_job_is_refused(queue):
    add(queue)
    claim(queue)

    with pytest.raises(IllegalTransition, match="a: a running job does not go on like this"):
        claim(queue, gpu=1)


def test_a_second_live_attempt_on_a_card_is_refused_and_leaves_the_job_queued(queue):
    add(queue)
    add(queue, "b")
    claim(queue)

    with pytest.raises(IllegalTransition, match="GPU 0"):
        claim(queue, "b")

    assert jobs.get_job(queue, "b").state is State.QUEUED


def test_a_card_of_a_live_attempt_on_several_is_taken_and_free_when_it_has_ended(queue):
    for name in "abc":
        add(queue, name)
    session = open_session(queue)
    first = attempts.claim(queue, "a", session=session.id, gpu=0, more=[1, 2], first_step=0, now=2.0)

    assert see(queue).gpus(first) == [0, 1, 2]
    for gpu, more in ((2, []), (3, [1]), (1, [3])):
        with pytest.raises(IllegalTransition, match="live attempt"):
            attempts.claim(queue, "b", session=session.id, gpu=gpu, more=more, first_step=0, now=3.0)
    other = attempts.claim(queue, "b", session=session.id, gpu=3, first_step=0, now=4.0)
    close(queue, first, None, Outcome.COMPLETED)
    third = attempts.claim(queue, "c", session=session.id, gpu=1, more=[2], first_step=0, now=5.0)

    assert (see(queue).gpus(other), see(queue).gpus(third)) == ([3], [1, 2])


def test_a_queue_of_an_older_version_learns_of_several_cards(file_queue):
    add(file_queue)
    with file_queue.write() as connection:
        connection.exec_driver_sql("DROP TABLE cards_held")
    again = open_queue(file_queue.place)

    assert see(again).gpus(claim(again)) == [0]
    again.close()


def test_many_claimers_share_many_jobs_without_a_double(tmp_path):
    queue = open_queue(tmp_path / "runner.db")
    names = [f"j{number}" for number in range(24)]
    for name in names:
        add(queue, name)
    session = open_session(queue).id
    won = []

    def work(gpu):
        own = open_queue(tmp_path / "runner.db")
        for name in names:
            try:
                attempt = attempts.claim(own, name, session=session, gpu=gpu, first_step=0, now=2.0)
            except IllegalTransition:
                continue
            won.append(name)
            close(own, attempt, None, Outcome.COMPLETED)
        own.close()

    threads = [threading.Thread(target=work, args=(gpu,)) for gpu in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()

    assert sorted(won) == sorted(names)


def test_a_wish_waits_for_the_trainer_and_is_at_once_where_none_runs(queue):
    add(queue)
    add(queue, "b")
    attempt = claim(queue)

    assert jobs.set_wish(queue, "b", Wish.HOLD, 3.0).state is State.HELD
    wished = jobs.set_wish(queue, "a", Wish.CANCEL, 3.0)
    assert (wished.state, wished.wish) == (State.RUNNING, Wish.CANCEL)

    close(queue, attempt, Change.CANCEL)
    job = jobs.get_job(queue, "a")
    assert (job.state, job.wish) == (State.CANCELLED, None)


def test_a_hold_can_be_taken_back_before_it_is_carried_out(queue):
    add(queue)
    claim(queue)
    jobs.set_wish(queue, "a", Wish.HOLD, 3.0)

    job = jobs.release(queue, "a", 4.0)

    assert (job.state, job.wish) == (State.RUNNING, None)


def test_a_finished_job_cannot_be_held(queue):
    add(queue)
    close(queue, claim(queue), None, Outcome.COMPLETED)
    jobs.change_state(queue, "a", Change.SUCCEED, 4.0)

    with pytest.raises(IllegalTransition, match="a: a succeeded job cannot be asked to hold"):
        jobs.set_wish(queue, "a", Wish.HOLD, 5.0)


def test_retry_gives_a_fresh_budget(queue):
    add(queue)
    close(queue, claim(queue), Change.FAIL, Outcome.FAILED, stalls=10, reason="no")

    job = jobs.retry(queue, "a", 9.0)

    assert (job.state, job.stalls, job.not_before, job.reason) == (State.QUEUED, 0, 0.0, "")


def test_a_back_off_is_kept_with_the_job(queue):
    add(queue)
    close(queue, claim(queue), Change.REQUEUE, Outcome.LOST, now=10.0, wait_seconds=60.0, stalls=2)

    job = jobs.get_job(queue, "a")

    assert (job.not_before, job.stalls, job.kept_step) == (70.0, 2, 7)


def test_an_attempt_is_closed_once(queue):
    add(queue)
    attempt = claim(queue)
    close(queue, attempt, Change.REQUEUE)

    with pytest.raises(IllegalTransition, match="was closed by somebody else"):
        close(queue, attempt, Change.REQUEUE)


def test_a_job_behind_a_failed_one_says_what_to_do(queue):
    add(queue)
    add(queue, "p2", phase="p2", after="a")
    close(queue, claim(queue), Change.FAIL, Outcome.FAILED, reason="no")
    every = {job.name: job for job in jobs.list_jobs(queue)}

    behind = waiting.blocked(every["p2"], every)
    assert behind is not None
    assert behind.text == "blocked: a failed; `wake2vec-runner retry a`, or cancel p2"
    assert waiting.unfinished(list(every.values())) == []
    assert waiting.claimable(list(every.values())) == []


def test_a_new_session_closes_those_of_other_machines_where_they_were_last_seen(queue):
    first = open_session(queue, "m1", now=1.0)
    attempts.see_session(queue, first, 50.0)
    open_session(queue, "m2", now=9000.0)

    found = attempts.list_sessions(queue)

    assert [(session.machine, session.ended_at) for session in found] == [("m1", 50.0), ("m2", None)]
    assert open_session(queue, "m2", now=9099.0).id == found[1].id


def test_a_checkpoint_is_saved_then_durable_and_other_bytes_at_its_step_are_neither(queue):
    add(queue)
    checkpoints.mark_saved(queue, "a", 200, manifest_sha256="x", size=5, now=1.0)
    assert checkpoints.durable_step(queue, "a") is None
    checkpoints.mark_durable(queue, "a", 200, manifest_sha256="x", size=5, now=2.0)
    assert checkpoints.durable_step(queue, "a") == 200

    checkpoints.mark_saved(queue, "a", 200, manifest_sha256="y", size=5, now=3.0)

    assert checkpoints.durable_step(queue, "a") is None
    assert [one.saved_at for one in checkpoints.list_checkpoints(queue, "a")] == [3.0]


def test_a_quarantined_checkpoint_is_never_the_newest(queue):
    add(queue)
    for step in (200, 400):
        checkpoints.mark_durable(queue, "a", step, manifest_sha256="x", size=5, now=2.0)

    checkpoints.quarantine(queue, "a", 400)

    assert checkpoints.durable_step(queue, "a") == 200


def step(number, loss=1.0):
    return {"kind": "step", "step": number, "loss": loss, "tokens": 9, "lr": 0.1, "grad_norm": 1.0, "seconds": 2.0}


def test_a_step_that_is_trained_again_counts_once(queue):
    add(queue)
    lines = [step(1), step(2), step(3), {"kind": "evaluation", "step": 2, "loss": 2.0, "surprise": True}]
    ledger.import_ledger(queue, "a", lines, 1.0, from_start=False)

    ledger.import_ledger(queue, "a", [step(1), step(2, loss=5.0)], 2.0, from_start=True)
    ledger.import_ledger(queue, "a", [step(3, loss=6.0)], 3.0, from_start=False)

    assert [(row.step, row.loss) for row in ledger.list_metrics(queue, "a")] == [(1, 1.0), (2, 5.0), (3, 6.0)]
    assert ledger.list_evaluations(queue, "a") == []


def test_a_change_that_a_trainer_saw_goes_into_the_jobs_log_once(queue):
    add(queue)
    change = {"what": "stack", "text": "goes on with torch 2.8.0 → 2.9.1"}
    line = {"kind": "event", "step": 4, "event": "regime", "text": change["text"], "change": change}

    for _ in range(2):
        ledger.import_ledger(queue, "a", [line], 1.0, from_start=True)

    (regime,) = ledger.list_regimes(queue, "a")
    assert (regime.from_step, regime.change) == (4, change)


def test_an_event_of_a_ledger_that_is_read_again_is_noted_once(queue):
    add(queue)
    line = {"kind": "event", "step": 4, "event": "oom", "text": "micro-batch 8 to 4"}

    ledger.import_ledger(queue, "a", [line], 1.0, from_start=True)
    ledger.import_ledger(queue, "a", [line], 2.0, from_start=True)

    events = [event.text for event in ledger.list_events(queue, job="a") if event.kind == "oom"]
    assert events == ["a: step 4: micro-batch 8 to 4"]


def test_a_plan_is_remembered_per_card_and_job(queue):
    add(queue)
    attempts.remember_plan(queue, "T4", "a", {"micro_batch": 4}, 1.0)
    attempts.remember_plan(queue, "T4", "a", {"micro_batch": 2}, 2.0)

    assert attempts.plan_limit(queue, "T4", "a") == {"micro_batch": 2}
    assert attempts.plan_limit(queue, "L4", "a") == {}


def test_segments_close_when_a_durable_checkpoint_covers_them(queue):
    add(queue)

    mark_durable(queue, 410, now=9.0)
    mark_durable(queue, 420, now=10.0)

    assert [segment.done_at for segment in jobs.list_segments(queue, "a")] == [9.0, 9.0, None]


def test_a_segment_that_only_a_checkpoint_in_quarantine_covers_is_not_done(queue):
    add(queue)
    mark_durable(queue, 200, now=9.0)
    mark_durable(queue, 400, now=10.0)

    checkpoints.quarantine(queue, "a", 400)

    assert [segment.done_at for segment in jobs.list_segments(queue, "a")] == [9.0, None, None]


def test_segments_planned_late_are_done_where_a_durable_checkpoint_covers_them(queue):
    add(queue, steps=None)
    mark_durable(queue, 200, now=9.0)

    jobs.set_steps(queue, "a", 250)

    assert [segment.done_at for segment in jobs.list_segments(queue, "a")] == [9.0, None]


def test_a_job_that_stops_early_is_done_to_its_end(queue):
    add(queue)
    mark_durable(queue, 410, now=9.0)

    jobs.end_at(queue, "a", 410)

    assert [segment.done_at for segment in jobs.list_segments(queue, "a")] == [9.0, 9.0, 9.0]


def test_a_file_that_is_no_database_is_named_and_can_be_set_aside(tmp_path):
    path = tmp_path / "runner.db"
    path.write_bytes(b"not a database at all" * 100)

    with pytest.raises(DatabaseCorrupt, match=r"runner\.db"):
        open_queue(path)
    kept = set_aside(path, Aside.CORRUPT)
    open_queue(path).close()

    assert kept.read_bytes().startswith(b"not a database")


def test_a_newer_format_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "runner.db"
    open_queue(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(HomeUnusable, match="newer wake2vec-runner"):
        open_queue(path)


def test_a_torn_page_is_found(tmp_path):
    path = tmp_path / "runner.db"
    queue = open_queue(path)
    for number in range(60):
        add(queue, f"j{number}")
    queue.close()
    body = bytearray(path.read_bytes())
    body[8192:16384] = bytes(8192)
    path.write_bytes(body)

    with pytest.raises(DatabaseCorrupt):
        check_integrity(path)


def test_a_copy_made_while_others_write_is_whole(file_queue, tmp_path):
    add(file_queue)

    copy_database(file_queue.place, tmp_path / "copy.db")

    check_integrity(tmp_path / "copy.db")
    copy = open_queue(tmp_path / "copy.db")
    assert jobs.get_job(copy, "a").name == "a"
    copy.close()


def test_the_database_is_written_through_and_shared(file_queue):
    with file_queue.read() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]

    assert settings == ["wal", 2]


def test_a_spec_in_the_queue_is_complete(queue):
    add(queue)
    with queue.read() as connection:
        stored = json.loads(connection.exec_driver_sql("SELECT spec FROM jobs").scalar())

    assert stored["checkpoint"]["every_steps"] == 200


def test_a_job_of_a_hundred_million_steps_has_rows_for_its_next_segments_alone(queue):
    jobs.add_job(queue, job_spec(steps=10**8), [], "f", 1.0)

    assert len(jobs.list_segments(queue, "a")) == PLANNED_AHEAD
    for durable in (200, 100_000, 150_050, 300_000):
        mark_durable(queue, durable, now=9.0)
    rows = jobs.list_segments(queue, "a")

    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert [row.first_step for row in rows] == [200 * number for number in range(len(rows))]
    assert sum(row.done_at is None for row in rows) == PLANNED_AHEAD


def test_rows_of_every_segment_as_an_older_version_made_them_go_on(queue):
    jobs.add_job(queue, job_spec(steps=1000), [], "f", 1.0)
    with queue.write() as connection:
        rows = [{"job": "a", "number": n, "first_step": 200 * n - 200, "last_step": 200 * n} for n in range(6, 3001)]
        connection.execute(insert(segments), rows)
        connection.execute(update(tables.jobs).values(steps=600_000))

    mark_durable(queue, 400_000, now=9.0)

    assert [row.last_step for row in jobs.list_segments(queue, "a")] == list(range(200, 600_001, 200))


def test_a_long_job_that_stopped_early_gets_no_more_segments(queue):
    jobs.add_job(queue, job_spec(steps=10**7), [], "f", 1.0)
    mark_durable(queue, 200_000, now=2.0)
    jobs.update_job(queue, "a", finishing=1)
    jobs.end_at(queue, "a", 200_100)

    mark_durable(queue, 200_100, now=9.0)

    assert jobs.list_segments(queue, "a")[-1].last_step == 200_100
