"""Measure the way from `start` to the first step, part by part: with the trainer that waits, and without it.

`python -m bench.latency.start`: the tiny model on a CPU, and the same with a lexicon of 44,990 made-up words; each on a
new home, and once more after a kill -9 of a trainer that had worked for a while. Seconds are those of this machine,
where other work may run beside: read the ratios.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.publish.wheel import ROOT
from runner.children import python
from runner.daemon.dispatch import WARM_AFTER_SECONDS
from wake2vec.contract.rundir import RunDir, read_heartbeat

PLACE = Path(__file__).parents[1] / "results" / "start.json"
WORDS = 44_990
# A trainer of one's own is never started ahead of its order: what every trainer was before.
BEFORE = f"trainer = {json.dumps(python('wake2vec'))}\n"
COMMON = "backoff_first_seconds = 0\n"


def main() -> None:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for words in (0, WORDS):
            for name, settings in (("before", BEFORE), ("after", "")):
                place = Path(folder) / f"{name}-{words}"
                found.append({"new_words": words or "tiny", "which": name, **measure(place, settings, words)})
    table = Table("words", "", "start to first step, s", "of a later attempt, s", "parts of the first")
    for one in found:
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one["parts"].items() if seconds >= 0.05)
        seconds = (f"{one['first_seconds']:.1f}", f"{one['later_seconds']:.1f}")
        table.add_row(str(one["new_words"]), one["which"], *seconds, parts)
    Console().print(table)
    how = "tiny model, CPU; from the launch of `start`, or the kill of the trainer before, to the first step"
    PLACE.write_text(json.dumps({"how": how, "cores": os.cpu_count(), "starts": found}, indent=1) + "\n")


def measure(place: Path, settings: str, words: int) -> dict[str, Any]:
    (place / "home").mkdir(parents=True)
    (place / "home" / "settings.toml").write_text(settings + COMMON)
    runner = [sys.executable, "-P", "-m", "runner", "--home", "home", "--store", "dir:store"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*runner, "enqueue", write_job(place, words)], cwd=place, env=environment, check=True, text=True)
    run = RunDir(root=place / "home" / "runs" / "job")
    began = time.monotonic()
    daemon = subprocess.Popen([*runner, "start"], cwd=place, env=environment, stdout=subprocess.DEVNULL)
    try:
        first = wait_for_step(run, attempt=1)
        seconds, parts = time.monotonic() - began, first["start_seconds"]
        time.sleep(WARM_AFTER_SECONDS + 15)
        os.kill(first["pid"], signal.SIGKILL)
        began = time.monotonic()
        later = wait_for_step(run, attempt=2)
        took = time.monotonic() - began
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
    return {
        "first_seconds": round(seconds, 1),
        "later_seconds": round(took, 1),
        "parts": parts,
        "later_parts": later["start_seconds"],
    }


def write_job(place: Path, words: int) -> str:
    """The tiny P1 with so many steps that it goes on, and with made-up words where asked."""
    tiny = ROOT / "jobs" / "tiny"
    corpus, lexicon = tiny / "corpus.txt", tiny / "lexicon.txt"
    if words:
        draw = random.Random(1)
        made = sorted({"".join(draw.choices("abcdefghijklmnoprstuvw", k=9)) for _ in range(words)})
        lexicon, text = place / "words.txt", corpus.read_text()
        lexicon.write_text("\n".join(made) + "\n")
        corpus = place / "corpus.txt"
        corpus.write_text(text + "\n".join(" ".join(draw.choices(made, k=12)) for _ in range(8000)))
    job = (ROOT / "jobs" / "tiny_p1.toml").read_text().replace('"tiny/model"', f'"{tiny / "model"}"')
    job = job.replace('"tiny/lexicon.txt"', f'"{lexicon}"').replace('"tiny/corpus.txt"', f'"{corpus}"')
    job = job.replace("steps = 60 ", "steps = 60000 ").replace("every_steps = 20 ", "every_steps = 2000 ")
    (place / "job.toml").write_text(f'name = "job"\n{job}')
    return "job.toml"


def wait_for_step(run: RunDir, *, attempt: int) -> Mapping[str, Any]:
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up:
        beat = read_heartbeat(run)
        if beat is not None and beat.attempt == attempt and beat.state == "training":
            return vars(beat)
        time.sleep(0.02)
    raise SystemExit(f"attempt {attempt} took no step; see {run.log}")


if __name__ == "__main__":
    main()
