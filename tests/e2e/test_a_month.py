"""G1, G2 and G10 over many sittings: each on an empty machine, cut like the original, and nobody lends a hand."""

from __future__ import annotations

from pathlib import Path

from bench.resilience.month import KEPT, Real, replay, share_training, sittings


def test_a_job_in_sittings_on_empty_machines_ends_in_the_bits_of_one_never_cut(tmp_path: Path) -> None:
    found = replay(tmp_path, (0, 2, 1), every=2, evaluate_every=2)

    assert found["equal"]
    assert found["sessions"] == 3
    assert found["manual_actions"] == 0
    assert found["store"]["calls"] > 100


def test_the_sittings_are_those_of_the_original_run() -> None:
    assert sum(KEPT.values()) == len(sittings()) == 41
    assert sum(kept * count for kept, count in KEPT.items()) == 3000


def test_most_of_the_time_of_all_sittings_trains() -> None:
    assert share_training(Real()) >= 0.85
    assert share_training(Real(load=1200.0)) < 0.85  # what a notebook by hand spent
