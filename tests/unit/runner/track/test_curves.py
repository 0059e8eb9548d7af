from __future__ import annotations

from runner.queue.rows import Evaluation, Metric
from runner.track.curves import Reached, points, reached_by


def metric(step: int, **more: float | None) -> Metric:
    known: dict[str, float | None] = {"loss": 2.0, "tokens": None, "lr": 0.1, "grad_norm": None, "seconds": None}
    return Metric(job="a", step=step, **(known | more))  # type: ignore[arg-type]


def evaluation(step: int, loss: float) -> Evaluation:
    names = ("tokens", "bits_per_byte", "new_loss", "new_tokens", "base_loss", "base_tokens", "ln_v", "seconds")
    return Evaluation(job="a", step=step, loss=loss, checkpoint=None, **dict.fromkeys(names))  # type: ignore[arg-type]


def test_rows_come_by_step_and_only_those_that_are_new() -> None:
    found = list(points([metric(1), metric(2), metric(3)], [evaluation(0, 9.0), evaluation(2, 8.0)], Reached(train=1)))

    assert [(point.step, sorted(point.figures)) for point in found] == [
        (0, ["eval/loss"]),
        (2, ["train/loss", "train/lr"]),
        (2, ["eval/loss"]),
        (3, ["train/loss", "train/lr"]),
    ]


def test_what_is_no_finite_number_is_left_out() -> None:
    (point,) = points([metric(1, loss=float("nan"), grad_norm=float("inf"))], [], Reached())

    assert dict(point.figures) == {"train/lr": 0.1}


def test_how_far_a_tracker_is_follows_from_the_last_step_of_its_curves() -> None:
    names = {"train/loss": 7, "train/lr": 8, "eval/loss": 4, "gpu/memory": 99, "timestamp": 3}

    assert reached_by(names) == Reached(train=8, evaluation=4)
    assert reached_by({}) == Reached(train=-1, evaluation=-1)
