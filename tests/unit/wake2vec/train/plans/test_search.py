"""Fitting a plan to a card: candidates, trials, memory, and what a job file fixes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wake2vec.contract.budget import CARDS, GIB, Workload, budget
from wake2vec.contract.models.model_shapes import SHAPES
from wake2vec.contract.plan import LIBRARY, WRITTEN_OUT, LayerPath, Plan
from wake2vec.train.plans.search import ChosenPlan, Trial, Wishes, candidates, fit

T4 = CARDS["t4"]
LIMIT = int(14.1 * GIB)
QWEN = Workload(
    shape=SHAPES["Qwen/Qwen2.5-14B"], phase="p1", load="nf4", new_tokens=44_223, rows="shared", batch=16, seq_len=256
)


class PretendCard:
    """Runs a plan by the budget: out of memory above the limit, and as fast as it is told."""

    def __init__(self, job: Workload, limit_bytes: int, favourite: str = "checkpoint") -> None:
        self.job, self.limit, self.favourite = job, limit_bytes, favourite
        self.tried: list[Plan] = []

    def run(self, plan: Plan) -> Trial | None:
        self.tried.append(plan)
        peak = budget(self.job, plan).total
        if peak > self.limit:
            return None
        speed = plan.micro_batch * (2.0 if plan.layers == self.favourite else 1.0)
        return Trial(plan=plan, tokens_per_second=speed, peak_bytes=peak)


def fitted(card: PretendCard, wishes: Wishes = Wishes(), **remembered: object) -> ChosenPlan:  # noqa: B008
    return fit(card.job, wishes, limit_bytes=card.limit, card=T4, remembered=remembered, run=card.run)


def test_the_fastest_measured_plan_that_fits_is_taken() -> None:
    for favourite in ("checkpoint", "offload", "lean"):
        card = PretendCard(QWEN, LIMIT, favourite)

        found = fitted(card)

        assert found.reason == "measured"
        assert found.plan == max(found.trials, key=lambda trial: trial.tokens_per_second).plan
        assert budget(QWEN, found.plan).total <= LIMIT


def test_trials_are_few_and_no_larger_plan_follows_one_that_failed() -> None:
    card = PretendCard(QWEN, int(11 * GIB))

    fitted(card)

    assert len(card.tried) <= 8
    for index, plan in enumerate(card.tried):
        failed = [early for early in card.tried[:index] if budget(QWEN, early).total > card.limit]
        assert not any(
            early.layers == plan.layers and early.micro_batch <= plan.micro_batch and early.embedding == plan.embedding
            for early in failed
        )


def test_a_plan_over_the_limit_is_not_taken_even_if_it_ran() -> None:
    def run(plan: Plan) -> Trial:
        return Trial(plan=plan, tokens_per_second=plan.micro_batch, peak_bytes=LIMIT + (plan.micro_batch > 2))

    found = fit(QWEN, Wishes(), limit_bytes=LIMIT, card=T4, remembered={}, run=run)

    assert found.plan.micro_batch <= 2


def test_a_remembered_plan_starts_at_once() -> None:
    card = PretendCard(QWEN, LIMIT)
    plan = Plan(micro_batch=4, layers="offload")

    assert fitted(card, **plan.to_dict()) == ChosenPlan(plan=plan, reason="remembered")
    assert card.tried == []


def test_a_remembered_plan_that_the_job_file_now_contradicts_is_forgotten() -> None:
    card = PretendCard(QWEN, LIMIT)
    plan = Plan(micro_batch=4, layers="offload")

    assert fitted(card, Wishes(micro_batch=2), **plan.to_dict()).plan.micro_batch == 2
    assert fitted(card, Wishes(layers="lean"), **plan.to_dict()).plan.layers == "lean"


def test_fixed_values_are_obeyed() -> None:
    card = PretendCard(QWEN, LIMIT)

    found = fitted(card, Wishes(micro_batch=8, layers="lean"))

    assert found == ChosenPlan(plan=Plan(micro_batch=8, layers="lean", embedding="host"), reason="fixed")
    assert fitted(card, Wishes(micro_batch=4)).plan.micro_batch == 4
    assert fitted(card, Wishes(layers="offload")).plan.layers == "offload"


def test_fixed_values_leave_the_place_of_the_embedding_to_the_card() -> None:
    """A separate Qwen at 16 x 256 needs 15.3 GiB with it and 13.9 without: the ladder would have halved the blocks."""
    card = PretendCard(replace(QWEN, rows="separate"), LIMIT)

    found = fitted(card, Wishes(micro_batch=16, layers="checkpoint"))

    assert found == ChosenPlan(plan=Plan(micro_batch=16, layers="checkpoint", embedding="host"), reason="fixed")
    assert (
        fitted(PretendCard(card.job, 2 * LIMIT), Wishes(micro_batch=16, layers="checkpoint")).plan.embedding == "device"
    )


def library_only(path: LayerPath) -> bool:
    return path not in WRITTEN_OUT


def test_where_nothing_that_is_written_out_holds_the_librarys_layers_are_measured() -> None:
    card = PretendCard(QWEN, LIMIT, "recompute")

    found = fit(QWEN, Wishes(), limit_bytes=LIMIT, card=T4, remembered={}, run=card.run, holds=library_only)

    assert found.reason == "measured"
    assert {plan.layers for plan in card.tried} <= set(LIBRARY)
    assert found.plan.layers == "recompute"
    assert budget(QWEN, found.plan).total <= LIMIT


def test_a_path_that_does_not_hold_is_not_tried_beside_others_that_do() -> None:
    card = PretendCard(QWEN, LIMIT, "checkpoint")

    fit(QWEN, Wishes(), limit_bytes=LIMIT, card=T4, remembered={}, run=card.run, holds=lambda path: path == "offload")

    assert {plan.layers for plan in card.tried} == {"offload"}


@pytest.mark.parametrize(("asked", "holding", "taken"), [
    ("lean", {"checkpoint", "offload"}, "checkpoint"), ("lean", set(), "recompute"), ("offload", {"lean"}, "recompute"),
])  # fmt: skip
def test_a_fixed_path_that_does_not_hold_gives_way_to_the_next(
    asked: LayerPath, holding: set[LayerPath], taken: LayerPath
) -> None:
    for limit in (LIMIT, None):
        wishes = Wishes(micro_batch=1, layers=asked)
        found = fit(
            QWEN, wishes, limit_bytes=limit, card=T4, remembered={}, run=lambda _: None, holds=holding.__contains__
        )
        assert found.plan.layers == taken

        again = fit(
            QWEN, wishes, limit_bytes=limit, card=T4, remembered=found.plan.to_dict(), run=lambda _: None,
            holds=lambda path: path == taken,
        )  # fmt: skip
        assert again == ChosenPlan(plan=found.plan, reason="remembered")


def test_a_remembered_plan_whose_path_does_not_hold_is_forgotten() -> None:
    plan, card = Plan(micro_batch=4, layers="lean"), PretendCard(QWEN, LIMIT)

    found = fit(QWEN, Wishes(), limit_bytes=LIMIT, card=T4, remembered=plan.to_dict(), run=card.run, holds=library_only)

    assert found.reason == "measured"
    assert found.plan.layers in LIBRARY


def test_a_card_on_which_nothing_fits_gets_the_leanest_plan() -> None:
    found = fitted(PretendCard(QWEN, 1 * GIB))

    assert found.reason == "leanest"
    assert found.plan == Plan(micro_batch=1, layers="offload", embedding="host")


def test_a_base_embedding_that_trains_stays_on_the_device() -> None:
    plans = candidates(QWEN, Wishes(host_embedding=False), limit_bytes=LIMIT, card=T4)

    assert plans
    assert {plan.embedding for plan in plans} == {"device"}


@pytest.mark.parametrize("batch", [1, 6, 7, 16, 48])
def test_every_candidate_divides_the_batch(batch: int) -> None:
    job = replace(QWEN, batch=batch)

    assert all(batch % plan.micro_batch == 0 for plan in candidates(job, Wishes(), limit_bytes=LIMIT, card=T4))


def test_a_cpu_is_not_measured() -> None:
    def run(plan: Plan) -> Trial:
        raise AssertionError(plan)

    found = fit(QWEN, Wishes(), limit_bytes=None, card=T4, remembered={}, run=run)

    assert found.reason == "cpu"
    assert found.plan == Plan(micro_batch=2, layers="autograd")
