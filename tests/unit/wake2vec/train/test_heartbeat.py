from __future__ import annotations

import time
from pathlib import Path

from wake2vec.contract.rundir import RunDir, read_heartbeat
from wake2vec.train.heartbeat import HeartbeatWriter


def test_a_beat_has_a_time_from_the_first_on(tmp_path: Path) -> None:
    run, before = RunDir(root=tmp_path), time.time()

    HeartbeatWriter(run, 1).write()

    beat = read_heartbeat(run)
    assert beat
    assert before <= beat.written_at <= time.time()


def test_what_was_said_of_one_state_is_not_said_of_the_next(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    pulse = HeartbeatWriter(run, 1)

    pulse.beat(state="loading", detail="3 of 7 GiB", progress=0.4)
    pulse.beat(progress=0.5)
    assert (pulse.now.detail, pulse.now.progress) == ("3 of 7 GiB", 0.5)
    pulse.beat(state="evaluating", progress=0.0)

    beat = read_heartbeat(run)
    assert beat
    assert (beat.state, beat.detail, beat.progress, beat.beat) == ("evaluating", "", 0.0, 3)
