"""An old run is taken over through the real command line; a hostile file is not run and queues nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.queue import jobs, ledger
from runner.queue.database import open_queue
from tests.machine import job_file
from tests.oldrun import old_run
from tests.zygote import quick_machine


class Trap:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def test_a_sentry_becomes_a_job_that_trains_on_from_its_rows(tmp_path: Path) -> None:
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store")
    old = old_run(tmp_path / "old")
    into = job_file(tmp_path, "mine", of="tiny_p1", vocab__match="anywhere", train__steps=2, evaluate__samples=0)

    torch.save({"embeddings": old.matrix, "step": Trap(tmp_path / "ran")}, tmp_path / "hostile.pt")
    refused = machine.run("import", str(tmp_path / "hostile.pt"), "--into", str(into), expect=1)
    assert "nothing in such a file is ever run here" in refused
    assert not (tmp_path / "ran").exists()

    said = machine.run("import", str(old.sentry()), "--into", str(into), "--json")
    (queued,) = json.loads(said[said.index("{") :])["queued"]  # the refused one left nothing behind
    assert (queued["name"], queued["inputs"][-1]["role"]) == ("mine", "start")
    assert "a job of that name is queued" in machine.run("import", str(old.sentry()), "--into", str(into), expect=1)
    machine.finish()

    rows = load_file(machine.run_dir("mine").final / "embed_tokens.safetensors")["rows"]
    began = old.matrix[old.wake_start :].half().float()
    unmoved = (rows == began).all(dim=1)
    assert 0 < int(unmoved.sum()) < len(rows)  # words that two steps did not meet have the bits of the old file
    queue = open_queue(machine.home / "runner.db")
    (regime,) = ledger.list_regimes(queue, "mine")
    names = [job.name for job in jobs.list_jobs(queue)]
    queue.close()
    assert names == ["mine"]
    assert regime.change["what"] == "import"
    assert regime.durable_at is not None
    assert "taken: the rows of 125 words from sentry_step_2700.pt" in machine.run_dir("mine").metrics.read_text()


def test_a_p2_with_words_of_its_own_is_for_import_alone(tmp_path: Path) -> None:
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store")
    lexicon = str(Path("jobs/tiny/lexicon.txt").absolute())
    into = job_file(tmp_path, "mine", of="tiny_p2", after=None, vocab__lexicon=lexicon)

    said = machine.run("enqueue", str(into), expect=1)

    assert "wake2vec-runner import OLD... --into" in said


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Setting `save_embedding_layers`:UserWarning"
)
def test_an_old_p3_goes_on_as_a_job_and_says_what_its_files_lack(tmp_path: Path) -> None:
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store")
    old = old_run(tmp_path / "old")
    into = job_file(
        tmp_path, "mine", of="tiny_p3", after=None, vocab__lexicon="tiny/lexicon.txt", vocab__match="anywhere",
        vocab__rows="shared", lora__r=4, lora__alpha=8, train__steps=4, evaluate__every_steps=2,
        checkpoint__every_steps=4, evaluate__max_windows=4, evaluate__samples=0, morphemes__nulls=10,
    )  # fmt: skip
    lacking = machine.run("import", str(old.embeddings()), "--into", str(into), expect=1)
    assert "no adapter among what you named" in lacking

    said = " ".join(machine.run("import", str(old.full_checkpoint()), "--into", str(into)).split())
    for told in (
        "taken over at step 2700 of the old run",
        "taken: the rows of 125 words from embeddings.pt",
        "taken: a LoRA of rank 4 from step_2700",
        "lacking: the rows that the old run began with; anchor, gains and movement count from the rows it left",
        "changed: pairs are held out by the text of the base; the old run may have trained on some of them",
        "seen: held-out text may be what the old run was trained on",
        "lacking: optimizer state, order of the data and random state",
    ):
        assert told in said
    machine.finish()

    rows = [json.loads(line) for line in machine.run_dir("mine").metrics.read_text().splitlines()]
    evaluations = {row["step"]: row["structure"] for row in rows if row["kind"] == "evaluation"}
    assert sorted(evaluations) == [0, 2, 4]
    assert evaluations[0]["consistency"]["held_out_gain_null"]["value"] == 0
    assert "held" in evaluations[4]["verdict"]
    final = {path.name for path in machine.run_dir("mine").final.iterdir()}
    assert {"adapter_model.safetensors", "embed_tokens.safetensors"} <= final
