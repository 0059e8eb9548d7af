"""The learning rate, against transformers' schedulers."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from wake2vec.train.schedule import ScheduleKind, learning_rate

THEIRS = {
    "cosine": lambda optimizer, warmup, total: get_cosine_schedule_with_warmup(optimizer, warmup, total),
    "linear": lambda optimizer, warmup, total: get_linear_schedule_with_warmup(optimizer, warmup, total),
    "constant": lambda optimizer, warmup, total: get_constant_schedule_with_warmup(optimizer, warmup),
}


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_every_step_has_the_rate_that_transformers_gives_it(kind: ScheduleKind, warmup: int) -> None:
    total, peak = 40, 5e-4
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    theirs = THEIRS[kind](optimizer, warmup, total)

    for step in range(total):
        ours = learning_rate(step, peak=peak, total=total, warmup_steps=warmup, kind=kind)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        theirs.step()


def test_the_rate_after_the_last_step_is_not_negative() -> None:
    for kind in ("cosine", "linear"):
        assert learning_rate(45, peak=1.0, total=40, warmup_steps=0, kind=kind) == pytest.approx(0.0, abs=0.05)
        assert learning_rate(45, peak=1.0, total=40, warmup_steps=0, kind=kind) >= 0.0
