"""The control: the same kills on a plain Hugging Face Trainer that takes its newest folder, as notebooks do."""

from __future__ import annotations

import os
import random
import runpy
import shutil
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from pathlib import Path
from typing import Any

from tests.faults.warm import kill, wait_for, warm_up
from tests.machine import JOBS

SCRIPT = JOBS / "command" / "hf_trainer.py"
STEPS = 30


def options(output: Path) -> Namespace:
    tiny = JOBS / "tiny"
    return Namespace(
        model=str(tiny / "model"), corpus=str(tiny / "corpus.txt"), output=str(output), steps=STEPS, save_every=2,
        resume="auto",
    )  # fmt: skip


def fork_script(output: Path) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        runpy.run_path(str(SCRIPT))["main"](options(output))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def weights(output: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(output / "model" / "model.safetensors"))


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)


def kills_of_hugging_face_trainer(kills: int, *, seed: int = 0, each: int = 4) -> dict[str, Any]:
    """Unstartable: the next start after a kill ends in an error. Wrong: the final weights are not the uncut run's."""
    warm_up()
    from transformers import Trainer, TrainingArguments  # noqa: F401

    draw, started = random.Random(seed), time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="wake2vec-control-"))
    done, runs, unstartable, wrong, details = 0, 0, 0, 0, []
    try:
        begun = time.monotonic()
        assert wait_for(fork_script(root / "uncut"), 300) == 0, (root / "uncut.log").read_text()[-2000:]
        span = time.monotonic() - begun
        expected = weights(root / "uncut")
        while done < kills:
            output = root / f"cut{runs}"
            runs += 1
            for _ in range(min(each, kills - done)):
                pid = fork_script(output)
                if wait_for(pid, draw.uniform(0.1, 0.9) * span) is not None:
                    break
                kill(pid)
                done += 1
            code = wait_for(fork_script(output), 300)
            if code != 0:
                unstartable += 1
                details.append(output.with_suffix(".log").read_text().strip().splitlines()[-1][:200])
            elif not equal(weights(output), expected):
                wrong += 1
            shutil.rmtree(output, ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return {
        "runs": runs,
        "kills": done,
        "unstartable": unstartable,
        "wrong": wrong,
        "details": sorted(set(details))[:10],
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }
