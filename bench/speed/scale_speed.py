"""How fast a job trains on 1 and 2 cards, ours and the peer's: `python -m bench.speed.scale --only speed`.

The same model, text and batch for both. CPU seconds of rank 0 stand beside those of the clock: on a machine that does
other work too, they alone say something.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.speed.scale import OURS, ROOT, TINY, Way, hardware, row, train

PEER = "HF Trainer + PEFT, DDP"
STEPS = 24
WIDE = {"batch": 8, "seq_len": 128}  # large enough for the arithmetic to outweigh the messages of two processes
WIDTH, LAYERS = 256, 4


def speed(folder: Path, chosen: Sequence[Path] | None, counts: Sequence[int]) -> list[dict[str, Any]]:
    """Ours and the peer, one after the other on each count; of a pair of jobs of our own where none are chosen."""
    rows, jobs = [], chosen or wide(folder)
    for cards in counts:
        way = Way(cards=cards, spread="samples", reduction="fast")
        home, alone = (folder / f"speed-{count}" for count in (cards, counts[0]))
        seen = train(home, jobs, way, steps=STEPS)
        rows += [row(home, alone, one, way, seen, steps=STEPS) for one in jobs]
        if cards == counts[0]:
            published(home, jobs[0], folder / "published")
        rows.append(peer_row(folder, jobs[1], cards))
        print(*rows[-len(jobs) - 1 :], sep="\n", flush=True)
    return rows


def published(home: Path, p1: Path, folder: Path) -> None:
    """P1's result as a plain model, which is what P2 starts from."""
    command = [sys.executable, "-m", "runner", "--home", str(home), "--store", f"dir:{home}-store"]
    words = ["export", p1.stem, "--to", str(folder), "--dtype", "fp32", "--step", "best"]
    subprocess.run([*command, *words], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def peer_row(folder: Path, p2: Path, cards: int) -> dict[str, Any]:
    """The best of what the peer's settings come to."""
    share = tomllib.loads(p2.read_text())["train"]["batch"] // cards
    found = [
        {"micro_batch": size} | peer(folder, p2, cards, size) for size in dict.fromkeys((share, max(1, share // 2)))
    ]
    best = max(found, key=lambda one: one["tokens_per_cpu_s"])
    return {
        "contender": PEER,
        "phase": "p2",
        "model": tomllib.loads(p2.read_text())["model"]["base"].rpartition("/")[2],
        "cards": cards,
        "hardware": hardware(),
        "spread": "samples",
        "reduction": "",
        "tokens_per_s": round(best["tokens_per_s"], 1),
        "tokens_per_cpu_s": round(best["tokens_per_cpu_s"], 1),
        "peak_gib": round(best["peak_gib"], 3),
        "micro_batch": best["micro_batch"],
        "max_relative": None,  # another order of samples and other masks: nothing to compare
        "bit_equal": None,
    }


def peer(folder: Path, p2: Path, cards: int, micro_batch: int) -> dict[str, float]:
    out = folder / "peer.json"
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(cards),
        "-m",
        "bench.speed.scale_peer",
    ]
    words = [str(p2), "--model", str(folder / "published"), "--micro-batch", str(micro_batch), "--out", str(out)]
    surroundings = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launch, *words, "--steps", str(STEPS)]
    subprocess.run(command, check=True, cwd=ROOT, env=surroundings, stdout=subprocess.DEVNULL)
    return dict(json.loads(out.read_text()))


def wide(folder: Path) -> list[Path]:
    """The tiny pair on a model whose layers are more and wider, with weights drawn, and on longer blocks."""
    from transformers import AutoTokenizer

    from bench.material.tiny import JOBS, Shape, make_model, save

    tokenizer = AutoTokenizer.from_pretrained(JOBS / "model")
    save(make_model(tokenizer, Shape(width=WIDTH, layers=LAYERS)), tokenizer, folder / "jobs" / "wide")
    (folder / "jobs" / "tiny").symlink_to(JOBS)
    found = []
    for job in TINY:
        lines = job.read_text().replace('"tiny/model"', '"wide"').splitlines()
        lines = [f"{key} = {WIDE[key]}" if (key := line.split(" ")[0]) in WIDE else line for line in lines]
        found.append(folder / "jobs" / job.name)
        found[-1].write_text("\n".join(lines) + "\n")
    return found


def fast(one: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Beside one rank of the same contender, and the peer beside ours on as many ranks."""
    same = [row for row in rows if row["phase"] == one["phase"]]
    alone = next(row for row in same if row["contender"] == one["contender"])
    ours = next(row for row in same if row["contender"] == OURS and row["cards"] == one["cards"])
    return {
        "contender": one["contender"],
        "phase": one["phase"].upper(),
        "ranks": str(one["cards"]),
        "tokens/s": f"{one['tokens_per_s']:,.0f}",
        "tokens per CPU second of rank 0": f"{one['tokens_per_cpu_s']:,.0f}",
        "of one rank": f"{one['tokens_per_cpu_s'] / alone['tokens_per_cpu_s']:.2f} ×",
        "of ours": f"{one['tokens_per_cpu_s'] / ours['tokens_per_cpu_s']:.2f} ×",
        "peak GiB of a rank": str(one["peak_gib"]),
    }
