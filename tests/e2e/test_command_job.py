"""A plain Hugging Face Trainer script under the queue: cut, uploaded, brought back on another machine, finished."""

from __future__ import annotations

import json
import time
from pathlib import Path

from runner.queue import attempts, checkpoints
from runner.queue.database import open_queue
from tests.machine import JOBS, Machine, quick_machine

JOB = "command_hf"
STEPS, SAVE_EVERY = 100, 20
PAUSE = "0.15"  # after each step, until it is cut: time for a folder to come to rest, and to be cut in the middle
TRAIN = "    trainer.train(resume"
PAUSING = """    import os, time, transformers

    class Pausing(transformers.TrainerCallback):
        def on_step_end(self, *_, **__):
            time.sleep(float(os.environ.get("PAUSE", "0")))

    trainer.add_callback(Pausing())
"""


def longer_job(folder: Path) -> Path:
    """The example with more steps, and a pause after each by wish; its paths stay valid from anywhere."""
    script = (JOBS / "command" / "hf_trainer.py").read_text()
    assert TRAIN in script
    (folder / "hf_trainer.py").write_text(script.replace(TRAIN, PAUSING + TRAIN))
    text = (JOBS / f"{JOB}.toml").read_text().replace("steps = 30 ", f"steps = {STEPS} ")
    text = text.replace('"{steps}",', f'"{{steps}}", "--save-every", "{SAVE_EVERY}",')
    text = text.replace('"command/', f'"{folder}/').replace('"tiny/', f'"{JOBS}/tiny/')
    path = folder / f"{JOB}.toml"
    path.write_text(text)
    return path


def durable_step(machine: Machine) -> int:
    queue = open_queue(machine.home / "runner.db")
    try:
        return checkpoints.durable_step(queue, JOB) or 0
    finally:
        queue.close()


def test_a_foreign_script_is_resumed_on_another_machine_and_keeps_its_result(tmp_path: Path) -> None:
    first = quick_machine(home=tmp_path / "first", store=tmp_path / "store", environment={"PAUSE": PAUSE})
    first.run("enqueue", str(longer_job(tmp_path)))
    first.start()
    give_up = time.monotonic() + 240
    while durable_step(first) < 5 and time.monotonic() < give_up:
        time.sleep(0.05)
    first.power_cut()
    reached = durable_step(first)
    second = quick_machine(home=tmp_path / "second", store=tmp_path / "store")
    second.start("--until-empty", "--take-over", "--allow", "command")
    second.finish()

    run = second.run_dir(JOB)
    queue = open_queue(second.home / "runner.db")
    lives = attempts.list_attempts(queue, JOB)
    queue.close()
    state = json.loads((run.root / "foreign" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    assert reached >= 5
    assert lives[-1].first_step >= reached
    assert state["global_step"] == STEPS
    losses = {row["step"]: float(row["loss"]) for row in state["log_history"] if "loss" in row}
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < losses[1]
    assert (run.final / "model" / "model.safetensors").is_file()
