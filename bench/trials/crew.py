"""Run trials in several processes that share a device, and keep each outcome as it comes.

A plan is asked again after every outcome, so that what is to be run may depend on what was found. Outcomes are lines of
a file: a crew that was stopped goes on where it was.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from bench.trials.trial import Trial, from_key

Found = Mapping[str, dict[str, Any]]  # figures by the key of their trial; {"error": ...} where it failed
Plan = Callable[[Found], Sequence[Trial]]  # the most urgent first


def work(plan: Plan, out: Path, *, device: str, processes: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Run what a plan asks for and `out` does not have; begin nothing after so many seconds."""
    found, rows = read(out), out.with_suffix(".rows")
    until = time.monotonic() + seconds
    running: dict[Future[dict[str, Any]], str] = {}
    with ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(device, str(rows))
    ) as pool:
        while True:
            busy = set(running.values())
            wanted = [key for key in dict.fromkeys(one.key for one in plan(found)) if key not in found]
            if time.monotonic() < until:
                for key in [key for key in wanted if key not in busy][: processes - len(running)]:
                    running[pool.submit(_run, key)] = key
            if not running:
                print(f"{len(found)} trials there, {len(wanted)} not begun", file=sys.stderr, flush=True)
                return found
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                key = running.pop(done)
                found[key] = done.result()
                keep(out, found, [key])
                _say(key, found[key], len(found), len(wanted) - 1)


def keep(out: Path, found: Found, keys: Sequence[str]) -> None:
    """Write these outcomes behind what is there; of two of one trial the later counts."""
    with out.open("a", encoding="utf-8") as lines:
        for key in keys:
            lines.write(json.dumps({**found[key], "trial": key}) + "\n")


def read(out: Path) -> dict[str, dict[str, Any]]:
    """The outcomes of a file; what failed is tried again."""
    if not out.exists():
        return {}
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {line["trial"]: line for line in lines if "error" not in line}


def _say(key: str, figures: dict[str, Any], done: int, left: int) -> None:
    what = figures["error"].splitlines()[-1] if "error" in figures else f"{figures['seconds']:.0f} s"
    print(f"[{done}, {left} to go] {key}: {what}", file=sys.stderr, flush=True)


_STATE: dict[str, Any] = {}


def _begin(device: str, rows: str) -> None:
    """In each process: what its trials share."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(1)
    scratch = tempfile.TemporaryDirectory()
    _STATE.update(device=device, rows=Path(rows), folder=scratch, scratch=Path(scratch.name), labs={})


def _run(key: str) -> dict[str, Any]:
    try:
        return run_here(from_key(key), **{name: _STATE[name] for name in ("device", "rows", "scratch", "labs")})
    except Exception:
        return {"error": traceback.format_exc()}


def run_here(trial: Trial, *, device: str, rows: Path, scratch: Path, labs: dict[str, Any]) -> dict[str, Any]:
    """One trial in this process; its lab is kept in `labs`, its rows go to a file of `rows`."""
    import torch
    from safetensors.torch import save_file

    from bench.trials.lab import Lab, material
    from bench.trials.trial import run

    if trial.lab not in labs:
        folder = scratch / trial.lab
        folder.mkdir()
        labs[trial.lab] = Lab(material(trial.lab, folder), device, folder)
    outcome = run(labs[trial.lab], trial)
    if device == "cuda":  # what a recorded step held goes back to the others
        gc.collect()
        torch.cuda.empty_cache()
    if outcome.rows:
        rows.mkdir(exist_ok=True)
        save_file(outcome.rows, rows / rows_file(trial))
    return outcome.figures


def rows_file(trial: Trial) -> str:
    import hashlib

    return hashlib.blake2b(trial.key.encode(), digest_size=8).hexdigest() + ".safetensors"
