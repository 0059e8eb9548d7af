"""One job on 1, 2 and more cards, through the command line: speed, memory, and how far the result is off.

`python -m bench.speed.scale` trains the tiny pair of jobs; `--jobs FILE...` others, a P1 before its P2. On a machine
without a card the ranks are processes on the CPU that talk over gloo: their speed says nothing of cards, their results
do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.machine.vram import read_cards
from wake2vec.contract.lock import read_lock
from wake2vec.contract.manifest import TRAINABLE, saved_steps
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.versions import versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
PAGE, BEGIN, END = ROOT / "docs" / "scale.md", "<!-- scale -->", "<!-- end -->"
TINY = [ROOT / "jobs" / "tiny_p1.toml", ROOT / "jobs" / "tiny_p2.toml"]
STEPS = 50
SCRATCH = "scale"  # of the copies of the job files, beside them


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a job's cards share it."""

    cards: int
    spread: str
    reduction: str

    @property
    def name(self) -> str:
        return f"{self.spread}-{self.reduction}-{self.cards}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=Path, nargs="+", default=TINY)
    options.add_argument("--cards", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--spread", nargs="+", default=["samples", "layers"])
    options.add_argument("--reduction", nargs="+", default=["fast", "fixed"])
    options.add_argument("--out", type=Path, default=RESULTS, help="rows of ways that are not run stay in it")
    chosen = options.parse_args()
    ways = [
        Way(cards=cards, spread=spread, reduction=reduction)
        for spread, reduction in itertools.product(chosen.spread, chosen.reduction)
        for cards in chosen.cards
        if spread == "samples" or cards == 2  # the tiny model has two layers
    ]
    # what all are compared with comes first, whether it is asked for or not
    needed = dict.fromkeys([Way(cards=1, spread="samples", reduction=one) for one in chosen.reduction] + ways)
    rows = []
    with tempfile.TemporaryDirectory(prefix="wake2vec-scale-") as folder:
        alone = Path(folder) / f"samples-{chosen.reduction[0]}-1"
        for way in needed:
            home = Path(folder) / way.name
            peaks = train(home, chosen.jobs, way)
            rows += [row(home, alone, one, way, peaks) for one in chosen.jobs if way in ways]
            print(way, *rows[-len(chosen.jobs) :], sep="\n", flush=True)
    before = json.loads(chosen.out.read_text())["rows"] if chosen.out.is_file() else []
    named = {key(one): one for one in [*before, *rows]}
    found = {
        "command": "python -m bench.speed.scale",
        "steps": STEPS,
        "versions": versions(),
        "rows": [named[one] for one in sorted(named)],
    }
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")
    if chosen.out == RESULTS:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(found)}{END}{rest.partition(END)[2]}")


def key(one: dict[str, Any]) -> tuple[Any, ...]:
    """The order of the rows."""
    return one["spread"] == "layers", one["reduction"] == "fixed", one["cards"], one["model"], one["phase"]


def table(found: dict[str, Any]) -> str:
    """The rows as they stand on the page."""
    dates = " and ".join(sorted({one["date"] for one in found["rows"]}))
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("python", "torch", "transformers"))
    lines = [f"{found['rows'][0]['hardware']}; {versions}; {dates}; {found['steps']} steps.", ""]
    lines += [
        "| phase | ranks | dealt | reduction | tokens/s | peak GiB of rank 0 | off from one rank | same bits |",
        "| --- " * 8 + "|",
    ]
    for one in found["rows"]:
        off, same = f"{one['max_relative']:.1e}" if one["max_relative"] else "0", "yes" if one["bit_equal"] else "no"
        cells = [one["phase"].upper(), one["cards"], one["spread"], one["reduction"], f"{one['tokens_per_s']:,.0f}"]
        lines.append(f"| {' | '.join(map(str, [*cells, one['peak_gib'], off, same]))} |")
    return "\n".join(lines) + "\n"


def train(home: Path, jobs: Sequence[Path], way: Way) -> dict[str, float]:
    """Run the jobs to their end in a home of their own; the most memory that a process of each held on the host."""
    home.mkdir()
    (home / "settings.toml").write_text(f"cpu_cards = {way.cards}\ntick_seconds = 0.2\nsync_seconds = 0.3\n")
    command = [sys.executable, "-m", "runner", "--home", str(home), "--store", f"dir:{home}-store"]
    files = [changed(job, way) for job in jobs]
    try:
        subprocess.run([*command, "enqueue", *map(str, files)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    finally:
        for file in files:
            file.unlink()
        files[0].parent.rmdir()
    daemon = subprocess.Popen([*command, "start", "--until-empty"], cwd=ROOT, stdout=subprocess.DEVNULL)
    peaks: dict[str, float] = {}
    while daemon.poll() is None:
        holder = read_lock(home / "locks" / "gpu0.lock")
        if holder and holder.get("pid"):
            name = str(holder["job"])
            peaks[name] = max(peaks.get(name, 0.0), resident_gib(int(holder["pid"])))
        time.sleep(0.2)
    if daemon.returncode:
        raise SystemExit((home / "runner.log").read_text()[-3000:])
    return peaks


def changed(job: Path, way: Way) -> Path:
    """A copy of a job file in a folder beside it, short, and on so many cards."""
    text = job.read_text()
    table = tomllib.loads(text)
    folder = job.parent / SCRATCH
    folder.mkdir(exist_ok=True)
    for kind, key in (("model", "base"), ("vocab", "lexicon"), ("data", "corpus")):
        value = table.get(kind, {}).get(key)
        if isinstance(value, str) and (job.parent / value).exists():
            text = text.replace(f'"{value}"', json.dumps(str(job.parent / value)))
    replaced = {"steps": STEPS, "every_steps": STEPS, "samples": 0}
    lines = [line for line in text.splitlines() if line.split(" ")[0] not in ("cards", "spread", "reduction")]
    lines = [f"{key} = {replaced[key]}" if (key := line.split(" ")[0]) in replaced else line for line in lines]
    at = lines.index("[train]") + 1
    lines[at:at] = [f"cards = {way.cards}", f'spread = "{way.spread}"', f'reduction = "{way.reduction}"']
    (folder / job.name).write_text("\n".join(lines) + "\n")
    return folder / job.name


def row(home: Path, alone: Path, job: Path, way: Way, peaks: dict[str, float]) -> dict[str, Any]:
    """One line of the table; differences are from one card and its usual sum, bits from one card and the same sum."""
    run, table = RunDir(root=home / "runs" / job.stem), tomllib.loads(job.read_text())
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"][STEPS // 2 :]
    on_card = [line["vram_peak_mib"] / 1024 for line in steps if "vram_peak_mib" in line]
    seen = read_cards()
    same = home.with_name(f"samples-{way.reduction}-1")
    return {
        "phase": table["phase"],
        "model": table["model"]["base"],
        "cards": way.cards,
        "spread": way.spread,
        "hardware": seen[0].name if seen else f"{platform.machine()} CPU, {os.cpu_count()} cores for all ranks, gloo",
        "reduction": way.reduction,
        "date": time.strftime("%Y-%m-%d"),
        "tokens_per_s": round(statistics.median(line["tokens"] / line["seconds"] for line in steps), 1),
        "peak_gib": round(max(on_card, default=peaks.get(job.stem, 0.0)), 3),
        "max_relative": difference(run, RunDir(root=alone / "runs" / job.stem)),
        "bit_equal": difference(run, RunDir(root=same / "runs" / job.stem)) == 0.0,
    }


def difference(one: RunDir, other: RunDir) -> float:
    """The largest in what was trained, as a share of the largest value."""
    from safetensors.torch import load_file

    mine, theirs = (load_file(run.checkpoint(saved_steps(run)[0]) / TRAINABLE) for run in (one, other))
    largest = max(float(tensor.abs().max()) for tensor in theirs.values())
    return max(float((mine[name] - theirs[name]).abs().max()) for name in theirs) / largest


def resident_gib(pid: int) -> float:
    """The most that the process has held of the host's memory."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    return 0.0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
