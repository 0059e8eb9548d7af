"""A trainer without torch that obeys the run-directory contract: `python fake_trainer.py RUN_DIR`.

What it does is told by `fake.json` in the run directory or by the environment variable FAKE_TRAINER (JSON):
seconds_per_step, save_every, evaluate_every, steps (for jobs in epochs), hang_at, die_at, oom_at, diverge_at, fail_at,
fail_setup (a cause; with remedy), ignore_sigterm, stop_early_at, pad_mib (of each checkpoint), and `once`: a fault
strikes only the first time.
Its weights are a hash chain over the steps, so that two runs agree in every bit exactly when both took every step once.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from wake2vec.contract.errors import GpuBusy
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import digest_file, read_json, sync_directory, write_json
from wake2vec.contract.lock import hold_lock
from wake2vec.contract.manifest import CHECKPOINT_FILES, MANIFEST, Manifest, manifest_sha256, newest_verified
from wake2vec.contract.rundir import RunDir

STOP = {"asked": False}


def told(run, order):
    table = json.loads(os.environ.get("FAKE_TRAINER", "{}")) | (read_json(run.root / "fake.json") or {})
    return table | table.get(order["job"]["name"], {})


def strikes(run, told, name, step):
    """Whether the fault `name` is due at this step."""
    if told.get(name) != step:
        return False
    marker = run.root / f"struck-{name}"
    if told.get("once") and marker.exists():
        return False
    marker.touch()
    return True


class Trainer:
    def __init__(self, run, order):
        self.run, self.order = run, order
        self.told = told(run, order)
        job = order["job"]
        train = job["train"] or {}
        self.steps = train.get("steps") or job.get("steps") or self.told.get("steps", 20)
        self.beats = 0
        self.state = {"step": 0, "weights": order["fingerprint"], "rows": []}
        self.saved_step = None
        self.parent = None

    def beat(self, state):
        self.beats += 1
        heartbeat = {
            "attempt": self.order["attempt"], "pid": os.getpid(), "beat": self.beats, "state": state,
            "step": self.state["step"], "steps": self.steps, "saved_step": self.saved_step, "written_at": time.time(),
        }  # fmt: skip
        write_json(self.run.heartbeat, heartbeat, durable=False)

    def resume(self):
        self.beat("loading")
        found = newest_verified(self.run, self.order["fingerprint"])
        if found is not None:
            self.state = read_json(found[0] / "state.json")
            self.saved_step, self.parent = self.state["step"], manifest_sha256(found[0])
        self.run.metrics.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.run.metrics.with_suffix(".tmp")
        fresh.write_text("".join(json.dumps(row) + "\n" for row in self.state["rows"]))
        os.replace(fresh, self.run.metrics)

    def add_row(self, row):
        self.state["rows"].append(row)
        with open(self.run.metrics, "a") as file:
            file.write(json.dumps(row) + "\n")

    def step(self):
        time.sleep(self.told.get("seconds_per_step", 0.005))
        step = self.state["step"] + 1
        begun, self.stepped_at = self.stepped_at, time.monotonic()
        self.state["weights"] = hashlib.sha256(f"{self.state['weights']}{step}".encode()).hexdigest()
        self.state["step"] = step
        row = {"kind": "step", "step": step, "loss": 1 / step, "tokens": 64, "lr": 0.1, "grad_norm": 1.0}
        self.add_row(row | {"seconds": self.stepped_at - begun})

    def save(self):
        step = self.state["step"]
        if step == 0 or self.saved_step == step:
            return
        final = self.run.checkpoint(step)
        temporary = final.with_name(final.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        failpoint("checkpoint.begin")
        bodies = {
            "trainable.safetensors": self.state["weights"] * 8,
            "optimizer.safetensors": self.state["weights"] * 16,
        }
        for name in CHECKPOINT_FILES:
            (temporary / name).write_text(bodies.get(name) or json.dumps(self.state))
        if pad := self.told.get("pad_mib"):
            with open(temporary / "trainable.safetensors", "ab") as file:
                file.writelines(random.Random(step * 1000 + part).randbytes(1 << 20) for part in range(pad))
        failpoint("checkpoint.state")
        manifest = Manifest(
            job=self.order["job"]["name"], step=step, fingerprint=self.order["fingerprint"], parent=self.parent,
            probe_loss=None, files={name: digest_file(temporary / name) for name in CHECKPOINT_FILES},
        )  # fmt: skip
        write_json(temporary / MANIFEST, manifest.to_json())
        failpoint("checkpoint.manifest")
        if not (final / MANIFEST).is_file():
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            failpoint("checkpoint.rename")
            sync_directory(final.parent)
        self.saved_step, self.parent = step, manifest_sha256(final)

    def evaluate(self):
        step = self.state["step"]
        self.save()
        self.add_row({"kind": "evaluation", "step": step, "loss": 5 - step / 100, "checkpoint": f"checkpoint-{step}"})
        write_json(self.run.best, {"step": step, "loss": 5 - step / 100})

    def result(self, outcome, where="training", cause="", remedy=""):
        return {
            "attempt": self.order["attempt"], "outcome": outcome, "step": self.state["step"], "steps": self.steps,
            "where": where, "cause": cause, "remedy": remedy, "saved_step": self.saved_step,
            "plan": self.told.get("plan"),
        }  # fmt: skip

    def train(self):
        self.resume()
        if cause := self.told.get("fail_setup"):
            return self.result("failed", "setup", cause, self.told.get("remedy", ""))
        if not self.order["source"] and self.order["job"]["phase"] == "p1" and not self.run.id_map.exists():
            write_json(self.run.id_map, {"first_new_id": 7})
        if source := self.order["source"]:
            folder = self.run.root / source["folder"] / f"checkpoint-{source['step']}"
            assert manifest_sha256(folder) == source["manifest_sha256"], folder
        every = self.order["job"]["checkpoint"]["every_steps"]
        self.stepped_at = time.monotonic()
        while self.state["step"] < self.steps:
            if STOP["asked"]:
                self.save()
                return self.result("yielded", cause="asked to stop")
            self.step()
            step = self.state["step"]
            if fault := self.fault(step):
                return fault
            self.beat("training")
            if step % min(self.told.get("save_every", every), every) == 0 or step == self.steps:
                self.save()
            if step % self.told.get("evaluate_every", 10) == 0 or step == self.steps:
                self.evaluate()
            if self.told.get("stop_early_at") == step:
                break
        self.save()
        self.beat("exporting")
        self.run.final.mkdir(exist_ok=True)
        (self.run.final / "weights.txt").write_text(self.state["weights"])
        return self.result("completed", cause="stopped early" if self.state["step"] < self.steps else "")

    def fault(self, step):
        if strikes(self.run, self.told, "hang_at", step):
            time.sleep(3600)
        if strikes(self.run, self.told, "die_at", step):
            os.kill(os.getpid(), signal.SIGKILL)
        if strikes(self.run, self.told, "oom_at", step):
            return self.result("oom", "training", "CUDA out of memory", "a smaller seq_len")
        if strikes(self.run, self.told, "diverge_at", step):
            return self.result("diverged", "training", "loss is nan", "a lower train.lr")
        if strikes(self.run, self.told, "fail_at", step):
            return self.result("failed", "training", "RuntimeError: boom")
        return None


def on_signal(number, frame):
    STOP["asked"] = True


def main(root):
    run = RunDir(root=Path(root))
    order = read_json(run.order)
    give_up = time.monotonic() + 3
    while True:
        try:
            with hold_lock(
                Path(order["gpu_lock"]),
                {"pid": os.getpid(), "attempt": order["attempt"], "job": order["job"]["name"]},
            ):
                trainer = Trainer(run, order)
                if not trainer.told.get("ignore_sigterm"):
                    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                        signal.signal(number, on_signal)
                else:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                run.result.unlink(missing_ok=True)
                write_json(run.result, trainer.train())
                return 0
        except GpuBusy:
            if time.monotonic() > give_up:
                return 14
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
