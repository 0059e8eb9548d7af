"""What a copy of another home's database may tell: the past up to what the logs call durable, and nothing that runs."""

from __future__ import annotations

import sqlite3

import pytest

from runner.errors import DatabaseCorrupt
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.queue.changing import set_value
from runner.queue.database import open_queue
from runner.queue.history import LogSays, check_copy, is_new, mark_of, take_history
from runner.queue.sqlite import copy_database
from runner.states import Change, Outcome, State, Verdict, Wish
from tests.simulated import open_attempts
from tests.unit.runner.conftest import CORPUS, job_spec

MANIFESTS = {10: "a" * 64, 20: "b" * 64}


def told(**more):
    return {
        "a": LogSays(
            **({"fingerprint": "print-a", "is_done": False, "manifests": frozenset(MANIFESTS.values())} | more)
        )
    }


def opened(path, *names):
    queue = open_queue(path)
    attempts.open_session(queue, machine=path.parent.name, platform="plain", gpu="T4", started_at=100.0, now=100.0)
    for name in names:
        jobs.add_job(queue, job_spec(name), [CORPUS], f"print-{name}", 100.0)
    return queue


@pytest.fixture
def old(tmp_path):
    """A home at work: one attempt over, one alive at step 25, durable at 20."""
    queue = opened(tmp_path / "old" / "runner.db", "a", "b")
    first = attempts.claim(queue, "a", session=1, gpu=0, first_step=0, now=110.0)
    attempts.close_attempt(
        queue, first, Verdict(change=Change.REQUEUE, stalls=1), 120.0, outcome=Outcome.OOM, last_step=10, kept_step=10
    )
    attempts.remember_plan(queue, "T4", "a", {"micro_batch": 2}, 120.0)
    attempts.claim(queue, "a", session=1, gpu=0, first_step=10, now=130.0)
    for step, sha256 in MANIFESTS.items():
        checkpoints.mark_durable(queue, "a", step, manifest_sha256=sha256, size=1, now=140.0)
    rows = [{"kind": "step", "step": step, "loss": 1 / step} for step in range(1, 26)]
    rows += [{"kind": "evaluation", "step": step, "loss": 2.0} for step in (20, 25)]
    ledger.import_ledger(queue, "a", rows, 140.0, from_start=True)
    yield queue
    queue.close()


@pytest.fixture
def new(tmp_path):
    queue = opened(tmp_path / "new" / "runner.db", "a")
    yield queue
    queue.close()


def copied(queue):
    path = queue.place.with_name("copy.db")
    path.unlink(missing_ok=True)
    copy_database(queue.place, path)
    return path


def taken(old, new, **more):
    (present,) = attempts.list_sessions(new)
    return take_history(new, copied(old), told(**more), present)


def test_attempts_sessions_and_limits_come_over_and_nothing_of_them_lives(old, new):
    assert is_new(new)
    present, _ = taken(old, new)

    first, second = attempts.list_attempts(new, "a")
    assert (first.id, first.outcome, first.last_step) == (1, Outcome.OOM, 10)
    assert (second.id, second.outcome, second.cause) == (2, Outcome.LOST, "the machine went away")
    assert open_attempts(new) == []
    assert [(one.id, one.machine, one.ended_at is None) for one in attempts.list_sessions(new)] == [
        (1, "old", False), (2, "new", True)
    ]  # fmt: skip
    assert (present.id, present.machine) == (2, "new")
    assert attempts.plan_limit(new, "T4", "a") == {"micro_batch": 2}
    assert (jobs.get_job(new, "a").state, jobs.get_job(new, "a").stalls) == (State.QUEUED, 1)
    assert not is_new(new)


def test_the_next_attempt_is_counted_on(old, new):
    present, _ = taken(old, new)

    assert attempts.claim(new, "a", session=present.id, gpu=0, first_step=20, now=200.0).id == 3


def test_a_session_that_the_logs_saw_later_lasted_until_then(old, new):
    (present,) = attempts.list_sessions(new)
    take_history(new, copied(old), told(), present, seen_at=5000.0)

    assert attempts.list_sessions(new)[0].ended_at == 5000.0


def test_steps_count_only_where_the_copy_and_the_log_agree_that_they_are_durable(old, new):
    taken(old, new, manifests=frozenset([MANIFESTS[10]]))

    assert [row.step for row in ledger.list_metrics(new, "a")] == list(range(1, 11))
    assert ledger.list_evaluations(new, "a") == []


def test_provisional_steps_never_come_over(old, new):
    taken(old, new)

    assert [row.step for row in ledger.list_metrics(new, "a")][-1] == 20
    assert [row.step for row in ledger.list_evaluations(new, "a")] == [20]


def test_a_done_job_keeps_the_ledger_it_brought(old, new):
    ledger.import_ledger(new, "a", [{"kind": "step", "step": 1, "loss": 9.0}], 1.0, from_start=True)
    taken(old, new, is_done=True)

    assert [(row.step, row.loss) for row in ledger.list_metrics(new, "a")] == [(1, 9.0)]


def test_what_happened_before_stands_before_what_happens_here(old, new):
    ledger.add_event(new, 300.0, "restored", "here")
    before = [event.text for event in ledger.list_events(old) if event.job != "b"]
    taken(old, new)

    texts = [event.text for event in ledger.list_events(new)]
    assert texts[: len(before)] == before
    assert texts[-1] == "here"


@pytest.mark.parametrize(("wish", "state"), [(Wish.HOLD, State.HELD), (Wish.CANCEL, State.CANCELLED)])
def test_a_wish_that_the_machine_did_not_live_to_carry_out_is_carried_out(old, new, wish, state):
    jobs.set_wish(old, "a", wish, 150.0)
    taken(old, new)

    assert jobs.get_job(new, "a").state is state


def test_a_hold_that_no_log_was_told_of_holds(old, new):
    jobs.set_wish(old, "b", Wish.HOLD, 150.0)
    jobs.add_job(new, job_spec("b"), [CORPUS], "print-b", 160.0)
    (present,) = attempts.list_sessions(new)
    take_history(new, copied(old), {"b": told(fingerprint="print-b")["a"]}, present)

    assert (jobs.get_job(new, "b").state, jobs.get_job(new, "b").reason) == (State.HELD, "hold on request")
    assert attempts.list_attempts(new, "a") == []


def test_what_the_log_was_told_later_stands(old, new):
    jobs.set_wish(old, "a", Wish.HOLD, 150.0)
    with old.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET state = 'failed', changed_at = 150 WHERE name = 'a'")
    taken(old, new, state_told_at=151.0)

    assert jobs.get_job(new, "a").state is State.QUEUED


def test_a_change_that_no_log_knows_comes_back_to_be_made_and_sent(old, new):
    set_value(old, "a", "runner.priority", 7, 150.0, from_step=20)
    _, changes = taken(old, new)

    assert changes == [("a", {"what": "set", "key": "runner.priority", "value": 7, "from_step": 20})]
    (regime,) = ledger.list_regimes(new, "a")
    assert (regime.change["value"], regime.durable_at) == (7, None)


def test_a_change_that_the_log_was_told_after_the_copy_was_made_is_no_news(old, new):
    set_value(old, "a", "runner.priority", 7, 150.0)
    said = [{"what": "set", "key": "runner.priority", "value": value, "from_step": 0} for value in (7, 1)]
    _, changes = taken(old, new, changes=tuple(said))

    assert changes == []
    assert ledger.list_regimes(new, "a") == []


def test_a_setting_that_was_set_back_and_not_sent_is_news(old, new):
    for value in (7, 1, 7):
        set_value(old, "a", "runner.priority", value, 150.0)
    said = [{"what": "set", "key": "runner.priority", "value": value, "from_step": 0} for value in (7, 1)]
    _, changes = taken(old, new, changes=tuple(said))

    assert [change["value"] for _, change in changes] == [7]


def test_a_job_of_the_same_name_that_is_other_work_is_left_out(old, new):
    with pytest.raises(DatabaseCorrupt, match="knows none of these jobs"):
        taken(old, new, fingerprint="another")

    assert attempts.list_attempts(new, "a") == []
    assert [one.machine for one in attempts.list_sessions(new)] == ["new"]


DOCTORED = {
    "a view for a table": "DROP TABLE metrics; CREATE VIEW metrics AS SELECT 1 AS job, 2 AS step",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON jobs BEGIN DELETE FROM jobs; END",
    "a table more": 'CREATE TABLE "more\'" (x)',
    "a column less": "ALTER TABLE jobs DROP COLUMN reason",
    "another format": "PRAGMA user_version = 99",
}


@pytest.mark.parametrize("change", DOCTORED.values(), ids=DOCTORED)
def test_a_database_that_is_not_exactly_a_queue_is_refused(old, change):
    path = copied(old)
    check_copy(path)
    with sqlite3.connect(path) as connection:
        connection.executescript(change)
    connection.close()

    with pytest.raises(DatabaseCorrupt):
        check_copy(path)


def test_torn_pages_are_refused(old):
    path = copied(old)
    body = bytearray(path.read_bytes())
    body[4096 * 3 : 4096 * 5] = bytes(4096 * 2)
    path.write_bytes(body)

    with pytest.raises(DatabaseCorrupt):
        check_copy(path)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE other AS SELECT * FROM sessions; DROP TABLE sessions; ALTER TABLE other RENAME TO sessions;"
        "UPDATE sessions SET seen_at = 'noon'",
        "UPDATE plan_limits SET plan = 'rubbish'",
        "UPDATE attempts SET id = 9223372036854775807 WHERE id = 2",
    ],
)
def test_rows_that_make_no_sense_change_nothing_here(old, new, change):
    path = copied(old)
    with sqlite3.connect(path) as connection:
        connection.executescript(change)
    connection.close()
    (present,) = attempts.list_sessions(new)
    before = ledger.list_events(new)

    with pytest.raises(DatabaseCorrupt):
        take_history(new, path, told(), present)
    assert attempts.list_sessions(new) == [present]
    assert ledger.list_events(new) == before


def test_equal_marks_mean_that_nothing_happened(old):
    before = mark_of(old)
    ledger.import_ledger(old, "a", [{"kind": "step", "step": 26, "loss": 1.0}], 150.0, from_start=False)
    assert mark_of(old) == before

    jobs.set_wish(old, "b", Wish.HOLD, 150.0)
    assert mark_of(old) != before
