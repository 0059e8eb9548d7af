"""What `start` says of what goes on, and of what changed between two looks."""

import dataclasses

from runner.screen.build import build_snapshot
from runner.screen.database import DatabaseView
from runner.screen.home import HomeView
from runner.screen.narration import brief, flat, news, scene
from runner.states import State
from runner.trouble import Cause, Trouble
from tests.unit.runner.moments import (
    NOW,
    checkpoint,
    evaluation,
    heartbeat,
    job,
    running_moment,
    running_surroundings,
)


def picture(moment: DatabaseView | None = None, around: HomeView | None = None, *troubles: Trouble):
    around = around or running_surroundings()
    around = dataclasses.replace(around, note=dataclasses.replace(around.note, troubles=troubles))
    return build_snapshot(moment or running_moment(), around, NOW)


def away(cause=Cause.STORE, **more):
    fields = {"job": "a", "said": "Drive: no answer", "since_at": NOW - 30, "again_at": NOW + 14}
    return Trouble(cause=cause, **(fields | more))


def test_everything_that_matters_of_a_job_at_work_is_in_the_scene():
    told = flat(scene(picture()))

    assert told == (
        "a: step 105 of 500 · loss 6.900 · held-out 7.000 at 100 · 2.0 s/step · durable to 100 · 14 min to go · "
        "store Google Drive · 1 to send, 1.0 MiB"
    )


def test_what_takes_long_before_training_is_named_with_its_share():
    beat = heartbeat(0, saved_step=0, state="loading", detail="3 of 7 GiB", progress=0.43)

    told = flat(scene(picture(running_moment(checkpoints={}), running_surroundings(heartbeats={"a": beat}))))

    assert told.startswith("a: loading 43%, 3 of 7 GiB")


def test_a_trainer_without_a_lock_yet_is_starting_and_one_without_a_lock_any_more_has_ended():
    coming = running_surroundings(trainers={}, heartbeats={})
    gone = running_surroundings(trainers={})

    assert flat(scene(picture(None, coming))).startswith("a: its trainer is starting")
    assert flat(scene(picture(None, gone))).startswith("a: its trainer has ended")


def test_what_is_in_the_way_has_its_time():
    rival = Trouble(job="b", cause=Cause.RIVAL, said="b: x is at work", since_at=NOW, again_at=NOW + 171)

    told = flat(scene(picture(None, None, away(), away(job="c"), rival)))

    assert told.count("Drive: no answer (for 30 s, tried again in 14 s)") == 1
    assert "b: another runner is at work on it; taken over in 2.9 min if that one stays silent" in told


def test_a_job_that_backs_off_says_until_when_and_why():
    moment = running_moment(jobs=[job(not_before=NOW + 240, reason="oom: no room")])

    assert "a: oom: no room (tried again in 4.0 min)" in flat(scene(picture(moment, running_surroundings(trainers={}))))


def test_the_short_line_keeps_what_is_in_the_way():
    assert brief(picture(None, None, away())) == [
        "a: step 105 of 500", "loss 6.900", "Drive: no answer (for 30 s, tried again in 14 s)",
    ]  # fmt: skip


def test_a_daemon_with_nothing_at_work_says_what_it_is_at():
    empty = picture(DatabaseView(), running_surroundings(trainers={}, heartbeats={}))

    assert flat(scene(empty, "reading Google Drive")).startswith("reading Google Drive")
    assert flat(scene(empty)).startswith("the queue is empty")


def test_each_evaluation_and_each_commit_is_news_once():
    before = picture()
    later = running_moment(
        evaluations={"a": [evaluation(0, 8.0), evaluation(100, 7.0), evaluation(200, 7.5), evaluation(300, 6.5)]},
        checkpoints={"a": [checkpoint(300)]},
    )
    after = picture(later, running_surroundings(heartbeats={"a": heartbeat(300, saved_step=300)}))

    assert list(news(before, after)) == [
        "a: step 200: held-out 7.500 nats",
        "a: step 300: held-out 6.500 nats, the best so far",
        "a: step 300 is durable in Google Drive",
    ]
    assert list(news(after, after)) == []


def test_a_trouble_is_news_when_it_begins_and_when_it_ends():
    calm, storm = picture(), picture(None, None, away(), away(job="b"))

    assert list(news(calm, storm)) == ["trouble: Drive: no answer; training goes on"]
    assert list(news(storm, picture(None, None, away(said="Drive: another answer")))) == []
    assert list(news(storm, calm)) == ["the store answers again, after 30 s"]


def test_a_trouble_of_a_job_that_is_over_does_not_end_with_a_promise():
    rival = away(Cause.RIVAL)
    done = picture(running_moment(jobs=[job(state=State.CANCELLED)]), running_surroundings(trainers={}))

    assert not any("runner is in the way" in line for line in news(picture(None, None, rival), done))


def test_what_needs_a_person_is_said_at_once_with_its_command():
    failed = picture(running_moment(jobs=[job(state=State.FAILED, reason="no plan fits")]))

    assert list(news(picture(), failed)) == ["needs you: a: no plan fits; wake2vec-runner retry a"]
