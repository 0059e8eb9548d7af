"""The budget against every peak that `bench` measured, and the work of a step against arithmetic by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wake2vec.contract.budget import CARDS, GIB, Workload, budget, kept_width, work
from wake2vec.contract.models.model_shapes import SHAPES, known_shape, shape_of_config
from wake2vec.contract.plan import Plan

RESULTS = Path(__file__).parents[4] / "bench" / "results"
NEW = {
    "Qwen/Qwen2.5-14B": 44_223,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 44_500,
    "meta-llama/Llama-3.1-8B": 44_195,
}
QWEN = Workload(
    shape=SHAPES["Qwen/Qwen2.5-14B"], phase="p1", load="nf4", new_tokens=44_223, rows="shared", batch=16, seq_len=256
)


def measured() -> list[Any]:
    """Every row of ours that was measured on a card, as (job, plan, GiB)."""
    found = []
    for path in sorted(RESULTS.glob("p[12]-*.json")):
        table = json.loads(path.read_text())
        for row in table["rows"]:
            as_published = row["details"].endswith("head as-is")  # heads in fewer bits were measured once, and given up
            if row["contender"] == "wake2vec" and row["peak_allocated_gib"] and as_published:
                job, plan = job_of(table, row)
                name = f"{path.stem}-{plan}-{job.rows}-{job.seq_len}"
                found.append(pytest.param(job, plan, row["peak_allocated_gib"], id=name.replace(" ", "-")))
    return found


def job_of(table: dict[str, Any], row: dict[str, Any]) -> tuple[Workload, Plan]:
    words = [part.split()[-1] for part in row["details"].split(", ")]
    phase = "p1" if table["question"] == "P1" else "p2"
    mode = words[0] if phase == "p1" else "separate"
    plan = Plan(micro_batch=row["micro_batch"], layers=row["layers"], embedding=words[-2])  # type: ignore[arg-type]
    job = Workload(
        shape=SHAPES[table["model"]],
        phase=phase,  # type: ignore[arg-type]
        load="nf4",
        new_tokens=NEW[table["model"]],
        rows=mode,  # type: ignore[arg-type]
        batch=row["tokens_per_step"] // row["seq_len"],
        seq_len=row["seq_len"],
        optimizer="adafactor" if phase == "p1" else "adamw",
    )
    return job, plan


@pytest.mark.parametrize(("job", "plan", "peak_gib"), measured())
def test_the_budget_is_within_five_percent_of_what_was_measured(job: Workload, plan: Plan, peak_gib: float) -> None:
    assert budget(job, plan).total / GIB == pytest.approx(peak_gib, rel=0.05)


def test_there_are_measured_cells_to_be_held_against() -> None:
    assert len(measured()) >= 60


def test_a_model_of_unknown_name_is_read_from_its_config() -> None:
    shape = SHAPES["Qwen/Qwen2.5-14B"]
    config = {
        "model_type": "qwen2", "num_hidden_layers": 48, "hidden_size": 5120, "intermediate_size": 13824,
        "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064, "tie_word_embeddings": False,
    }  # fmt: skip

    assert shape_of_config(shape.name, config, tokenizer_length=151665) == shape
    assert known_shape("nobody/nothing") is None
    assert known_shape("Qwen/Qwen2.5-14B-Instruct") == shape


def test_the_weights_of_qwen_are_those_of_its_card() -> None:
    # 13.1 B without embeddings, as Qwen publishes; norms and biases are not quantised
    assert SHAPES["Qwen/Qwen2.5-14B"].body_weights == 13_212_057_600
    assert kept_width(SHAPES["Qwen/Qwen2.5-14B"]) * 2 == 90_112


def test_leaner_plans_need_less_and_slower_paths_take_longer() -> None:
    plans = [Plan(micro_batch=4, layers=layers, embedding="host") for layers in ("lean", "checkpoint", "offload")]

    needs = [budget(QWEN, plan).total for plan in plans]
    floors = [work(QWEN, plan).seconds(24, 240) for plan in plans]

    assert needs == sorted(needs, reverse=True)
    assert floors == sorted(floors)
    half = replace(plans[0], micro_batch=2)
    assert budget(QWEN, half).total < needs[0]
    assert work(QWEN, half).seconds(24, 240) > floors[0]


def test_a_step_without_recomputation_costs_four_operations_a_weight_and_token() -> None:
    tokens = QWEN.batch * QWEN.seq_len
    per_token = work(QWEN, Plan(micro_batch=16, layers="lean")).flop / tokens

    # 4 N body, 4 N head, 2 N for the gradient of the new rows, and attention three and a half times over
    expected = 4 * 13.212e9 + 4 * 195_888 * 5120 + 2 * 44_223 * 5120 + 3.5 * 48 * 2 * 256 * 5120
    assert per_token == pytest.approx(expected, rel=1e-3)


def test_every_model_but_the_one_of_two_cards_fits_a_t4_in_its_leanest_plan() -> None:
    limit = (CARDS["t4"].memory_gib - CARDS["t4"].overhead_gib) * GIB
    leanest = Plan(micro_batch=1, layers="offload", embedding="host")
    too_big = {
        name
        for name, shape in SHAPES.items()
        if budget(replace(QWEN, shape=shape, rows="shared" if shape.tied else "separate"), leanest).total >= limit
    }
    assert too_big == {"Qwen/Qwen2.5-32B"}


def test_a_split_block_needs_less_and_adamw_needs_more() -> None:
    plan = Plan(micro_batch=1, layers="lean")

    assert budget(QWEN, replace(plan, block_splits=4)).total < budget(QWEN, plan).total
    extra = budget(replace(QWEN, optimizer="adamw"), plan).optimizer - budget(QWEN, plan).optimizer
    assert extra == pytest.approx(2 * 4 * 44_223 * 5120, rel=1e-3)


def test_rows_in_16_bits_halve_their_bytes_and_neither_gradient_nor_optimizer_state() -> None:
    plan = Plan(micro_batch=1, layers="offload", embedding="host")
    for phase in ("p1", "p3"):
        for optimizer in ("adafactor", "adamw"):
            job = replace(QWEN, phase=phase, optimizer=optimizer)
            wide, narrow = budget(job, plan), budget(replace(job, row_bytes=2), plan)

            assert wide.rows == 2 * narrow.rows == 2 * 2 * job.row_sets * job.new_tokens * job.shape.width
            assert replace(narrow, rows=wide.rows) == wide
    at_rest = replace(QWEN, phase="p2")
    assert budget(replace(at_rest, row_bytes=2), plan) == budget(at_rest, plan)  # beside a body in 16 bits already
    whole = replace(at_rest, load="fp32")
    assert 2 * budget(replace(whole, row_bytes=2), plan).rows == budget(whole, plan).rows
