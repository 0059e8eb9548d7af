from __future__ import annotations

import dataclasses
import io
import math

import pytest
from rich.console import Console

from runner.figures import bar, curve, day, duration, hours, loss, segment_bar, size
from runner.screen.build import build_snapshot
from runner.screen.daemon_note import UploadNote
from runner.screen.database import DatabaseView
from runner.screen.render import render
from runner.states import State
from runner.trouble import Cause, Trouble
from tests.unit.runner.moments import (
    NOW,
    checkpoint,
    evaluation,
    heartbeat,
    job,
    metrics,
    nothing,
    running_moment,
    running_surroundings,
)


def _lines(moment=None, around=None, *, width=80, height=None, ascii_only=False, encoding="utf-8"):
    picture = build_snapshot(moment or running_moment(), around or running_surroundings(), NOW)
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(width=width, file=file, highlight=False, color_system=None)
    console.print(render(picture, width=width, height=height, ascii_only=ascii_only))
    file.flush()
    return file.buffer.getvalue().decode(encoding).splitlines()


def test_everything_that_matters_is_on_a_screen_of_80_by_24():
    jobs = [job(state=State.RUNNING), job("b", number=2, after="a")]

    lines = _lines(running_moment(jobs=jobs), height=24)

    text = "\n".join(lines)
    assert len(lines) <= 24
    for said in (
        "runner at work for 1 h 0 min", "training · heartbeat 3 s ago", "trained 105 of 500 (21%)", "saved 104",
        "durable 100", "costs 10 s of work", "2 s if only the trainer dies", "6.900", "learning: down 1.00 nats",
        "7.000 nats at 100, the best", "ln V 9.00", "2.0 s/step", "32 tokens/s", "lr 1.0e-3",
        "14 min to go", "evaluation at 200, milestone at 200", "peak 11.7 GiB of 14.6 GiB, 10.7 GiB held",
        "no OOM", "micro-batch 2", "1 on colab Tesla T4", "Google Drive", "1 to send, 1.0 MiB",
        "last verified 30 s ago", "100 MiB free, room for 100 checkpoints", "waits for a",
    ):  # fmt: skip
        assert said in text, said


def test_a_trainer_that_has_been_started_and_has_no_lock_yet_is_not_called_dead():
    around = dataclasses.replace(running_surroundings(), trainers={}, heartbeats={})
    alone = dataclasses.replace(around, daemon=None)
    silent = dataclasses.replace(running_surroundings(), trainers={})

    assert ["no trainer alive" in "\n".join(_lines(around=one)) for one in (around, alone, silent)] == [
        False,
        True,
        True,
    ]


def test_the_parts_of_a_start_are_shown_until_it_trains():
    parts = {"imports": 3.26, "identity": 0.01, "weights": 8.0}
    around = running_surroundings()
    for state, shown in (("evaluating", True), ("training", False)):
        around.heartbeats["a"] = heartbeat(state=state, start_seconds=parts)

        text = "\n".join(_lines(around=around))

        assert ("11.3 s so far · imports 3.3 · weights 8.0" in text) is shown


@pytest.mark.parametrize(("days", "told"), [(None, False), (1, True), (50, True), (70, False)])
def test_a_store_that_fills_up_names_the_day_while_it_is_near(days, told):
    around = running_surroundings()
    full_at = None if days is None else NOW + days * 86_400
    around = dataclasses.replace(around, note=dataclasses.replace(around.note, full_at=full_at))

    text = "\n".join(_lines(around=around, width=200))

    assert ("at this rate full on" in text) == told
    assert not told or day(full_at) in text


def test_a_layer_path_that_was_not_taken_is_told():
    said = "a: step 0: lean: the output of layer 1 is 0.29 away from the library's"
    moment = running_moment(layers=[("a", said), ("b", "b: step 0: of another job")])

    text = "\n".join(_lines(moment, width=200))

    assert "step 0: lean: the output of layer 1 is 0.29 away from the library's" in text
    assert "of another job" not in text


def test_what_was_said_of_one_activity_is_not_said_in_training():
    said = [
        "3 of 7 GiB"
        in "\n".join(_lines(around=running_surroundings(heartbeats={"a": heartbeat(detail="3 of 7 GiB", state=state)})))
        for state in ("loading", "training")
    ]

    assert said == [True, False]


@pytest.mark.parametrize("is_coming", [False, True])
def test_what_is_on_its_way_has_a_bar(is_coming):
    upload = UploadNote(
        job="a", name="checkpoint-104", done_bytes=1 << 30, size=4 << 30, started_at=NOW - 10, is_coming=is_coming
    )
    around = running_surroundings()
    around = dataclasses.replace(around, note=dataclasses.replace(around.note, uploads=(upload,)))

    text = "\n".join(_lines(around=around, width=200))

    assert f"{'fetching' if is_coming else 'sending'} a checkpoint-104 ██░░░░░░ 25%" in text
    assert ("to send, 1.0 MiB at 102 MiB/s" in text) == (not is_coming)


def test_what_takes_long_before_training_has_a_bar():
    beat = heartbeat(state="loading", detail="loading the model", progress=0.5)

    assert "loading: loading the model ████░░░░ 50%" in "\n".join(
        _lines(around=running_surroundings(heartbeats={"a": beat}), width=120)
    )


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_no_line_is_wider_than_the_terminal(width, ascii_only):
    jobs = [job(state=State.RUNNING), job("a-job-with-a-very-long-name-" + "x" * 50, number=2, reason="y" * 300)]

    lines = _lines(running_moment(jobs=jobs), width=width, ascii_only=ascii_only)

    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("height", [5, 12, 24, 40])
def test_a_low_terminal_loses_events_first_and_never_what_runs(height):
    jobs = [job(state=State.RUNNING), *(job(f"j{number}", number=number) for number in range(2, 30))]

    lines = _lines(running_moment(jobs=jobs), height=height)

    assert any("trained 105" in line for line in lines)
    if height >= 24:
        assert len(lines) <= height
        assert any("more" in line for line in lines)


def test_a_terminal_without_unicode_gets_plain_signs():
    lines = _lines(ascii_only=True, encoding="ascii")

    assert any(line.startswith("#") for line in lines)


def test_what_a_person_must_do_stands_at_the_top_with_its_command():
    lines = _lines(running_moment(jobs=[job(state=State.FAILED, reason="no plan fits the card")]))

    assert lines[1] == "needs you a: no plan fits the card"
    assert lines[2] == "  → wake2vec-runner retry a"


def test_an_empty_queue_says_how_to_fill_it():
    assert any("wake2vec-runner enqueue FILE..." in line for line in _lines(DatabaseView(), nothing()))


def test_a_best_loss_above_ln_v_is_called_a_guess():
    moment = running_moment(evaluations={"a": [evaluation(100, 12.5, ln_v=12.19)]})

    assert any("ln V 12.19: no better than a guess" in line for line in _lines(moment))


def test_a_job_that_starts_is_first_measured_before_its_first_step():
    starting = running_surroundings(heartbeats={"a": heartbeat(0, state="loading", saved_step=None)})
    moment = running_moment(evaluations={}, metrics={}, checkpoints={})

    assert any("first measured before step 1" in line for line in _lines(moment, starting))


def test_a_loss_that_is_no_number_is_shown_as_such():
    moment = running_moment(evaluations={"a": [evaluation(100, math.nan)]})

    assert any("nan nats at 100" in line for line in _lines(moment))


def test_a_job_that_is_safe_to_close_says_so():
    around = running_surroundings()
    beat = dataclasses.replace(around.heartbeats["a"], step=100, saved_step=100)

    lines = _lines(running_moment(), dataclasses.replace(around, heartbeats={"a": beat}))

    assert any("safe to close: nothing would be lost" in line for line in lines)


def test_a_step_that_is_not_durable_is_never_safe_to_close_however_short_it_was():
    fast = metrics(count=105, seconds=0.001)

    lines = _lines(running_moment(metrics={"a": fast}))

    assert not any("safe to close" in line for line in lines)
    assert any("costs 0 s of work" in line for line in lines)


@pytest.mark.parametrize(
    "moment",
    [
        running_moment(jobs=[job(state=State.RUNNING, finishing=True)], checkpoints={"a": [checkpoint(500)]}),
        running_moment(checkpoints={"a": [checkpoint(100), checkpoint(104, durable=False)]}),
    ],
)
def test_all_sent_is_not_said_while_something_is_on_its_way(moment):
    around = running_surroundings(trainers={}, heartbeats={})

    assert "all sent" not in "\n".join(_lines(moment, around))


def test_a_store_that_is_away_is_told_on_its_line_and_never_beside_all_sent():
    trouble = Trouble(job="a", cause=Cause.STORE, said="Google Drive: no answer", since_at=NOW - 9)
    around = running_surroundings(heartbeats={"a": heartbeat(100, saved_step=100)})
    around = dataclasses.replace(around, note=dataclasses.replace(around.note, troubles=(trouble,)))

    text = "\n".join(_lines(running_moment(checkpoints={"a": [checkpoint(100)]}), around, width=200))

    assert "Google Drive: no answer" in text
    assert "all sent" not in text
    assert "needs you" not in text  # it is tried again by itself


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "?"), (-3, "0 s"), (0.4, "0 s"), (41, "41 s"), (99.4, "99 s"), (204, "3.4 min"), (3540, "59 min"),
     (4320, "1 h 12 min"), (183_600, "2 d 3 h")],
)  # fmt: skip
def test_durations_read_as_a_person_says_them(seconds, said):
    assert duration(seconds) == said


def test_hours_at_work_are_not_days():
    assert (hours(3600 * 149.2), hours(4320)) == ("149 h", "1 h 12 min")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (None, "?"),
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (449 << 20, "449 MiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_sizes_read_as_a_person_says_them(number, said):
    assert size(number) == said


def test_a_bar_is_full_only_when_done_and_empty_only_at_the_start():
    assert bar(0.0, 4) == "░░░░"
    assert bar(0.001, 4) == "█░░░"
    assert bar(0.999, 4) == "███░"
    assert bar(1.0, 4) == "████"
    assert bar(2.0, 4, ascii_only=True) == "####"


def test_segments_are_pieces_while_they_fit():
    assert segment_bar(1, 0.5, 3, 11) == "███ █░░ ░░░"
    assert segment_bar(3, 0.0, 3, 11) == "███ ███ ███"
    assert segment_bar(50, 0.0, 100, 20) == "█" * 10 + "░" * 10
    assert segment_bar(0, 0.0, 0, 20) == ""


def test_a_curve_goes_from_its_highest_to_its_lowest():
    assert curve([3.0, 2.0, 1.0], 8) == "█▅▁"
    assert curve([1.0, 1.0], 8) == "▁▁"
    assert curve([], 8) == ""
    assert len(curve([float(number) for number in range(1000)], 30)) == 30


def test_a_loss_shows_three_digits():
    assert (loss(None), loss(5.1549), loss(math.inf)) == ("?", "5.155", "inf")
