"""The whole storm: run every fault protocol, write docs/guarantees.json and the table in docs/guarantees.md.

`python -m bench.resilience.faults [PROTOCOL ...]`; FAULTS=n scales the number of trials (1: the whole budget, three to
four hours on two cores). A protocol that breaks a guarantee makes the exit code 1.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
SHOWN = (
    *(
        "runs",
        "kills",
        "signals",
        "slowest_seconds",
        "cuts",
        "schedules",
        "races",
        "calls",
        "faults",
        "commits",
        "claims",
        "noticed",
        "false_claims",
        "unstartable",
        "wrong",
    ),
    *("lost", "duplicate", "double_commits", "bytes_resent_max", "chunk_bytes", "peak_rss_mib", "blocked_seconds_max"),
    *("repeated_steps_max", "goodput", "largest_difference", "smaller_plans"),
)
MUST_BE_NONE = ("false_claims", "wrong", "unstartable", "unnamed", "broken", "lost", "duplicate", "double_commits")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to break a guarantee: what it does, which guarantees it stands for, and how it is run."""

    name: str
    guarantees: str
    says: str
    run: Callable[[], dict[str, Any]]
    is_control: bool = False  # the same harness on somebody else's code: broken runs are a finding, not a failure


def protocols() -> list[Protocol]:
    # by name: the tests are no package of the project, and nothing here may need them at import time
    ranks: Any = import_module("tests.faults.protocols.ranks")
    runner: Any = import_module("tests.faults.protocols.runner")
    trainer: Any = import_module("tests.faults.protocols.trainer")
    queue: Any = import_module("tests.faults.protocols.queue")
    control: Any = import_module("tests.faults.protocols.control")
    store: Any = import_module("tests.faults.protocols.store")
    signals: Any = import_module("tests.faults.protocols.signals")
    power: Any = import_module("tests.faults.protocols.power")
    claims: Any = import_module("tests.faults.protocols.claims")
    budget: Any = store.budget
    return [
        Protocol(
            name="trainer killed",
            guarantees="G1 G2 G3",
            says="kill -9 of real trainers (P1 and P2, dropout, evaluations) at random instants",
            run=lambda: trainer.kills_of_warm_trainers(budget(900, 4)),
        ),
        Protocol(
            name="command line killed",
            guarantees="G1 G2 G3",
            says="kill -9 of trainer, daemon or both, cold processes of the real command line",
            run=lambda: trainer.kills_through_the_command_line(budget(100, 3)),
        ),
        Protocol(
            name="Hugging Face Trainer killed",
            guarantees="control",
            says="the same kills on Trainer.train(resume_from_checkpoint=True)",
            run=lambda: control.kills_of_hugging_face_trainer(budget(100, 4)),
            is_control=True,
        ),
        Protocol(
            name="trainer failpoints",
            guarantees="G1 G2 G3",
            says="kill -9 of the real trainer at each of its failpoints, P1 and P2",
            run=trainer.kills_at_failpoints,
        ),
        Protocol(
            name="trainer signalled",
            guarantees="G1 G2",
            says="SIGTERM, SIGINT and SIGHUP to real trainers at random instants",
            run=lambda: trainer.signals_to_warm_trainers(budget(200, 4)),
        ),
        Protocol(
            name="daemon failpoints",
            guarantees="G1 G2 G3",
            says="kill -9 at every failpoint of daemon and run directory",
            run=runner.kill_at_every_failpoint,
        ),
        Protocol(
            name="daemons killed",
            guarantees="G1 G2 G3",
            says="kill -9 of trainer, daemon, both; homes lost; a stand-in trainer",
            run=lambda: runner.kill_at_random_instants(budget(500, 6)),
        ),
        Protocol(
            name="fifty cuts",
            guarantees="G1 G2 G3",
            says="50 cuts in one run of 500 steps of the real trainer, P1 and P2, ten seeds",
            run=lambda: trainer.many_cuts(budget(10)),
        ),
        Protocol(
            name="fifty cuts (daemons)",
            guarantees="G2 G3",
            says="50 cuts in one run of 500 steps, the daemon too, ten seeds; a stand-in trainer",
            run=lambda: runner.fifty_cuts(budget(10)),
        ),
        Protocol(
            name="daemon signalled",
            guarantees="G1 G10",
            says="SIGTERM, SIGINT and SIGHUP to a daemon that launches, uploads, commits, prunes or closes a job",
            run=signals.signals_to_daemons,
        ),
        Protocol(
            name="ranks killed",
            guarantees="G1 G2",
            says="kill -9 of a rank, of rank 0, of the daemon and of all, the job moving between 1, 2 and 4 ranks",
            run=lambda: ranks.kills_of_ranks(budget(100, 10)),
        ),
        Protocol(
            name="ranks killed, layers",
            guarantees="G1 G2",
            says="the same of a P2 of rows and adapters, the job moving between layers and samples over 2 and 1 rank",
            run=lambda: ranks.kills_of_ranks(budget(30, 10), steps=200, each=15, of="tiny_p2", ways=ranks.LAYERS),
        ),
        Protocol(
            name="power cut (trainer)",
            guarantees="G1 G2",
            says="kill -9, and a disk that loses or tears whatever was not fsynced",
            run=lambda: power.power_cuts_of_trainers(budget(200, 6)),
        ),
        Protocol(
            name="power cut (store)",
            guarantees="G1 G4",
            says="the same of the daemon on a dir: store, then a new home",
            run=lambda: power.power_cuts_of_stores(budget(200, 4)),
        ),
        Protocol(
            name="disk faults",
            guarantees="G1 G10",
            says="ENOSPC and EIO at every failpoint",
            run=runner.fail_at_every_failpoint,
        ),
        Protocol(
            name="damaged checkpoints",
            guarantees="G1 G9",
            says="truncations, bit flips, deletions and swaps of every file of a checkpoint",
            run=lambda: trainer.damaged_checkpoints(budget(1000, 20)),
        ),
        Protocol(
            name="out of memory",
            guarantees="G5 G6",
            says="MemoryError in load, forward, backward, clip, step, evaluation and save, once and twice in a row",
            run=trainer.out_of_memory,
        ),
        Protocol(
            name="out of memory, micro-batch 1",
            guarantees="G5 G6",
            says="the same where no smaller micro-batch is left",
            run=lambda: trainer.out_of_memory(hits=(2,), smallest=True),
        ),
        Protocol(
            name="queue, lease and commit",
            guarantees="G3 G4",
            says="Hypothesis state machine over queue, lease and commit",
            run=lambda: queue.state_machines(budget(10_000, 40)),
        ),
        Protocol(
            name="Drive stalling",
            guarantees="G1",
            says="an upload into a line that answers nothing, and how long it holds the daemon up",
            run=store.stuck_transfer,
        ),
        Protocol(
            name="Drive memory",
            guarantees="G1",
            says="memory above the process for a file of 600 MiB, both ways",
            run=lambda: store.memory(budget(600, 128)),
        ),
        Protocol(
            name="runners racing (directory)",
            guarantees="G4",
            says="two and three processes race for one job",
            run=lambda: store.races(budget(200), kind="dir"),
        ),
        Protocol(
            name="runners racing (Drive)",
            guarantees="G4",
            says="two and three processes race for one job",
            run=lambda: store.races(budget(200), kind="drive"),
        ),
        Protocol(
            name="schedules of runners",
            guarantees="G4",
            says="two and three runners with kills, freezes, skewed clocks, late requests and lost answers",
            run=lambda: store.schedules(budget(20_000, 40)),
        ),
        Protocol(
            name="failing Drive",
            guarantees="G1 G4",
            says="Drive calls that fail, hang, lose their answers or answer late",
            run=lambda: store.faulty_calls(budget(10_000, 40)),
        ),
        Protocol(
            name="uploads killed",
            guarantees="G1",
            says="kill -9 in the middle of an upload, which then goes on where it stopped",
            run=lambda: store.killed_uploads(budget(100, 3)),
        ),
        Protocol(
            name="claims",
            guarantees="G1 G10",
            says="the store goes away (folder, fsspec, Drive; root, job, file; while training, between, new home)",
            run=lambda: claims.store_goes_away(budget(216, 27)),
        ),
        Protocol(
            name="soak",
            guarantees="G1 G2 G3 G10",
            says="a kill every few seconds and 5 % store faults",
            run=lambda: runner.soak(seconds=budget(1800, 30)),
        ),
    ]


def main(names: list[str]) -> int:
    chosen = [one for one in protocols() if not names or one.name in names]
    if unknown := set(names) - {one.name for one in chosen}:
        print(f"no protocol of that name: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    known = {one.name for one in protocols()}
    figures = {name: found for name, found in read_figures(DOCS / "guarantees.json").items() if name in known}
    broken = 0
    for number, protocol in enumerate(chosen, start=1):
        print(f"[{number}/{len(chosen)}] {protocol.name}: {protocol.says}", flush=True)
        found = run(protocol)
        figures[protocol.name] = found
        broken += is_broken(found) and not protocol.is_control
        print(f"    {summary(found)} in {found['seconds']:.0f} s", flush=True)
        write(figures)
    return 1 if broken else 0


def run(protocol: Protocol) -> dict[str, Any]:
    started = time.monotonic()
    figures = protocol.run()
    return {
        "guarantees": protocol.guarantees,
        "says": protocol.says,
        "is_control": protocol.is_control,
        "seconds": round(time.monotonic() - started, 1),
        "date": time.strftime("%Y-%m-%d"),
        "scale": os.environ.get("FAULTS", "1"),
        "versions": versions(),
        **{key: value for key, value in figures.items() if key != "seconds"},
    }


def versions() -> dict[str, str]:
    named = ("torch", "transformers", "peft", "sqlalchemy", "apscheduler", "pydrive2")
    return {"python": platform.python_version(), **{name: version(name) for name in named}}


def is_broken(figures: Mapping[str, Any]) -> bool:
    """Whether any count or list of things that must not happen holds something."""
    return any(figures.get(key) for key in MUST_BE_NONE)


def summary(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {in_short(figures[key])}" for key in SHOWN if key in figures)


def in_short(figure: Any) -> str:
    return f"{figure:.3g}" if isinstance(figure, float) else str(figure)


def read_figures(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def write(figures: Mapping[str, Any]) -> None:
    """The figures as JSON, and as a table between the two marks in the page."""
    (DOCS / "guarantees.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    page = DOCS / "guarantees.md"
    text = page.read_text() if page.is_file() else f"# Guarantees\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{after}")


def table(figures: Mapping[str, Any]) -> str:
    lines = [
        "| protocol | guards | what is done | figures | scale | seconds | date |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in figures.items():
        cells = (name, one["guarantees"], one["says"], summary(one), one["scale"], f"{one['seconds']:.0f}", one["date"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("FAULTS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))
