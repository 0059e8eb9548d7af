"""One job on 1, 2 and more cards, through the command line: speed, memory, and how far the result is off.

`python -m bench.speed.scale` trains the tiny pair of jobs for what comes out, and a wider pair for its speed, whose P2
the peer trains too (`scale_peer`); `--jobs FILE...` others, a P1 before its P2. On a machine without a card the ranks
are processes on the CPU that talk over gloo: their speed says nothing of cards, their results do.
"""

from __future__ import annotations

import argparse
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.machine.vram import read_cards
from wake2vec.contract.lock import read_lock
from wake2vec.contract.manifest import TRAINABLE, saved_steps
from wake2vec.contract.rundir import RunDir, read_heartbeat
from wake2vec.contract.versions import versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
TINY = [ROOT / "jobs" / "tiny_p1.toml", ROOT / "jobs" / "tiny_p2.toml"]
STEPS = 50
SCRATCH = "scale"  # of the copies of the job files, beside them
OURS = "wake2vec-runner"
PARTS = ("rows", "speed", "state")  # how far off, how fast, and what splitting the optimizer's state would save


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
    options.add_argument("--jobs", type=Path, nargs="+", help="instead of the tiny pair")
    options.add_argument("--cards", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--only", choices=PARTS, help="one part; the others' rows stay as they are")
    options.add_argument("--out", type=Path, default=RESULTS)
    chosen = options.parse_args()
    before = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {}
    parts = {part: before.get(part, []) for part in PARTS}
    with tempfile.TemporaryDirectory(prefix="wake2vec-scale-") as scratch:
        folder, wanted = Path(scratch), [chosen.only] if chosen.only else PARTS
        if "rows" in wanted:
            parts["rows"] = exact(folder, chosen.jobs or TINY, chosen.cards)
        if "speed" in wanted:
            from bench.speed.scale_speed import speed

            parts["speed"] = speed(folder, chosen.jobs, chosen.cards[:2])
        if "state" in wanted:
            from bench.speed.scale_state import measured

            parts["state"] = measured(folder)
    dates = before.get("dates", {}) | dict.fromkeys(wanted, time.strftime("%Y-%m-%d"))
    found = {
        "study": "speed.scale",
        "setting": {"threads of a rank": 1},
        "hardware": hardware(),
        "date": " to ".join(dict.fromkeys((min(dates.values()), max(dates.values())))),
        "dates": dates,
        "versions": versions(),
        **parts,
    }
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")


def hardware() -> str:
    seen = read_cards()
    return seen[0].name if seen else f"{platform.machine()} CPU, {os.cpu_count()} cores for all ranks, gloo"


def exact(folder: Path, jobs: Sequence[Path], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Every way on every count: how far each is off from one card."""
    rows = []
    for spread, reduction in (("samples", "fast"), ("samples", "fixed"), ("layers", "fast"), ("layers", "fixed")):
        for cards in (cards for cards in counts if spread == "samples" or cards == 2):  # of two layers
            way = Way(cards=cards, spread=spread, reduction=reduction)
            seen = train(folder / way.name, jobs, way)
            rows += [row(folder / way.name, folder / "samples-fast-1", one, way, seen) for one in jobs]
            print(*rows[-len(jobs) :], sep="\n", flush=True)
    return rows


def table(found: dict[str, Any], part: str = "") -> list[dict[str, str]]:
    """The rows as they stand on the page."""
    if part == "speed":
        from bench.speed.scale_speed import fast

        return [fast(one, found["speed"]) for one in found["speed"]]
    if part == "state":
        from bench.speed.scale_state import held

        return [held(one, way) for one in found["state"] for way in ("replicated", "split")]
    return [
        {
            "phase": one["phase"].upper(),
            "ranks": str(one["cards"]),
            "dealt": one["spread"],
            "reduction": one["reduction"],
            "tokens/s": f"{one['tokens_per_s']:,.0f}",
            "peak GiB of rank 0": str(one["peak_gib"]),
            "off from one rank": f"{one['max_relative']:.1e}" if one["max_relative"] else "0",
            "same bits": "yes" if one["bit_equal"] else "no",
        }
        for one in found["rows"]
    ]


def train(home: Path, jobs: Sequence[Path], way: Way, *, steps: int = STEPS) -> dict[str, Seen]:
    """Run the jobs to their end in a home of their own; what was seen of rank 0 of each meanwhile."""
    home.mkdir()
    (home / "settings.toml").write_text(f"cpu_cards = {way.cards}\ntick_seconds = 0.2\nsync_seconds = 0.3\n")
    command = [sys.executable, "-m", "runner", "--home", str(home), "--store", f"dir:{home}-store"]
    files = [changed(job, way, steps) for job in jobs]
    try:
        subprocess.run([*command, "enqueue", *map(str, files)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    finally:
        for file in files:
            file.unlink()
        files[0].parent.rmdir()
    daemon = subprocess.Popen([*command, "start", "--until-empty"], cwd=ROOT, stdout=subprocess.DEVNULL)
    found: dict[str, Seen] = {}
    while daemon.poll() is None:
        holder = read_lock(home / "locks" / "gpu0.lock")
        if holder and holder.get("pid"):
            name = str(holder["job"])
            found.setdefault(name, Seen()).look(RunDir(root=home / "runs" / name), int(holder["pid"]))
        time.sleep(0.05)
    if daemon.returncode:
        raise SystemExit((home / "runner.log").read_text()[-3000:])
    return found


@dataclass(kw_only=True)
class Seen:
    """Of a trainer from outside: the most memory that it held on the host, and its CPU seconds by step."""

    peak_gib: float = 0.0
    cpu_seconds: dict[int, float] = field(default_factory=dict)

    def look(self, run: RunDir, pid: int) -> None:
        self.peak_gib = max(self.peak_gib, resident_gib(pid))
        beat = read_heartbeat(run)
        if beat is not None and beat.pid == pid and beat.state == "training":
            with suppress(OSError):
                spent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
                self.cpu_seconds.setdefault(beat.step, sum(map(int, spent)) / os.sysconf("SC_CLK_TCK"))

    def cpu_seconds_per_step(self, first: int) -> float:
        """From that step on. How busy the machine is otherwise hardly changes it, and waiting costs nothing."""
        late = {step: spent for step, spent in self.cpu_seconds.items() if step >= first}
        return (late[max(late)] - late[min(late)]) / (max(late) - min(late))


def changed(job: Path, way: Way, steps: int) -> Path:
    """A copy of a job file in a folder beside it, short, and on so many cards."""
    text = job.read_text()
    table = tomllib.loads(text)
    folder = job.parent / SCRATCH
    folder.mkdir(exist_ok=True)
    for kind, key in (("model", "base"), ("vocab", "lexicon"), ("data", "corpus")):
        value = table.get(kind, {}).get(key)
        if isinstance(value, str) and (job.parent / value).exists():
            text = text.replace(f'"{value}"', json.dumps(str(job.parent / value)))
    replaced = {"steps": steps, "every_steps": steps, "samples": 0, "max_windows": 4}
    lines = [line for line in text.splitlines() if line.split(" ")[0] not in ("cards", "spread", "reduction")]
    lines = [f"{key} = {replaced[key]}" if (key := line.split(" ")[0]) in replaced else line for line in lines]
    at = lines.index("[train]") + 1
    lines.insert(lines.index("[evaluate]") + 1, "hopes = false")
    lines[at:at] = [f"cards = {way.cards}", f'spread = "{way.spread}"', f'reduction = "{way.reduction}"']
    (folder / job.name).write_text("\n".join(lines) + "\n")
    return folder / job.name


def row(home: Path, alone: Path, job: Path, way: Way, seen: dict[str, Seen], *, steps: int = STEPS) -> dict[str, Any]:
    """One line of the table; differences are from one card and its usual sum, bits from one card and the same sum."""
    run, table = RunDir(root=home / "runs" / job.stem), tomllib.loads(job.read_text())
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    late = [line for line in lines if line["kind"] == "step"][steps // 2 :]
    on_card = [line["vram_peak_mib"] / 1024 for line in late if "vram_peak_mib" in line]
    same = home.with_name(f"samples-{way.reduction}-1")
    return {
        "contender": OURS,
        "phase": table["phase"],
        "model": table["model"]["base"],
        "cards": way.cards,
        "spread": way.spread,
        "hardware": hardware(),
        "reduction": way.reduction,
        "tokens_per_s": round(statistics.median(line["tokens"] / line["seconds"] for line in late), 1),
        "tokens_per_cpu_s": round(late[0]["tokens"] / seen[job.stem].cpu_seconds_per_step(steps // 2), 1),
        "peak_gib": round(max(on_card, default=seen[job.stem].peak_gib), 3),
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
