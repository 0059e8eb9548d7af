"""Rows in 16 bits through the real command line: P1 cut by kill -9, P2 and P3 on it, exported as plain models."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.machine import Machine, job_file, quick_machine
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.order import Order
from wake2vec.model.precision import DTYPES
from wake2vec.use.assemble import assemble

SHORT: dict[str, Any] = {
    "train__steps": 8, "evaluate__every_steps": 40, "evaluate__max_windows": 4, "evaluate__samples": 0,
    "checkpoint__every_steps": 4, "data__seq_len": 32,
}  # fmt: skip
JOBS = ("p1", "p2", "p3")


def enqueue(machine: Machine, folder: Path, dtype: str) -> str:
    p1 = job_file(folder, "p1", of="tiny_p1", vocab__dtype=dtype, **{**SHORT, "train__steps": 30})
    p2 = job_file(folder, "p2", of="tiny_p2", after="p1", **SHORT)
    p3 = job_file(folder, "p3", of="tiny_p3", after="p2", morphemes__nulls=10, **{**SHORT, "train__steps": 16})
    return machine.run("enqueue", str(p1), str(p2), str(p3))


@pytest.mark.sweep  # `make test` cuts and exports a P3 on rows in bf16: test_p3.py
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_three_phases_end_in_the_same_bits_after_a_kill_and_their_exports_compute_what_was_trained(
    tmp_path: Path, dtype: str
) -> None:
    uncut = quick_machine(home=tmp_path / "uncut", store=tmp_path / "uncut-store")
    enqueue(uncut, tmp_path, dtype)
    uncut.finish()
    machine = quick_machine(home=tmp_path / "cut", store=tmp_path / "cut-store")
    enqueue(machine, tmp_path, dtype)
    chance = random.Random(f"cuts of {dtype}")
    machine.environment |= {VARIABLE: "loop.logged=stall:8"}  # time to strike there, at rest or not
    machine.start("--until-empty")
    machine.wait_for_step("p1", chance.randrange(4, 9))
    cuts = machine.kill_trainer()
    machine.wait_for_step("p3", chance.randrange(4, 9))
    cuts += machine.kill_trainer()
    machine.finish()

    assert cuts >= 1, "the runs were over before they could be cut"
    for job in JOBS:
        assert machine.outcome(job) == uncut.outcome(job)
        run = machine.run_dir(job)
        out = tmp_path / f"out-{job}"
        machine.run("export", job, "--to", str(out), "--dtype", "fp32", *(() if job == "p1" else ("--merge",)))
        order = Order.model_validate_json(run.order.read_text("utf-8"))
        trained = assemble(run, order, "final", torch.device("cpu"))
        ids = AutoTokenizer.from_pretrained(out)("riverrun, past Eve and Adam's", return_tensors="pt")["input_ids"]
        ids = torch.cat([ids, torch.arange(trained.first_new_id, trained.first_new_id + 50)[None]], dim=1)
        with torch.no_grad():
            plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()(input_ids=ids).logits
            torch.testing.assert_close(plain, trained.model(input_ids=ids).logits, rtol=1e-5, atol=1e-5)
        matrix = load_file(out / "model.safetensors")["model.embed_tokens.weight"][trained.first_new_id :]
        assert torch.equal(matrix, matrix.to(DTYPES[dtype]).to(matrix.dtype))  # every value is one that was trained
