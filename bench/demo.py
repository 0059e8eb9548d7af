"""The whole thing on a real model and a real text, with the plug pulled in the middle: `make demo`.

Does what a user does, through the command line: enqueue, start, lose the machine, start on a new one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.materials import default_cache, materials
from runner.commands.demo import Machine, prove
from runner.errors import RunnerError
from wake2vec.errors import Wake2vecError
from wake2vec.rundir import RunDir, read_heartbeat

ROOT = Path(__file__).parent.parent
JOBS = ROOT / "jobs"
console = Console(highlight=False)


def show_progress(machine: Machine, jobs: list[str], until: Callable[[], bool]) -> None:
    """Show how far the jobs are until something is true; raises RunnerError when the daemon gives up."""
    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {job: progress.add_task(job, total=None, state="waits", start=False) for job in jobs}

        def look() -> None:
            for job, task in tasks.items():
                show_beat(progress, task, machine.run_dir(job))

        machine.watch(until, look)


def show_beat(progress: Progress, task: Any, run: RunDir) -> None:
    beat = read_heartbeat(run)
    if beat is None:
        return
    progress.start_task(task)
    share = f" {beat.progress:.0%}" if beat.progress is not None else ""
    loss = f", loss {beat.loss:.2f}" if beat.loss is not None else ""
    state = f"{beat.state}{share}: step {beat.step} of {beat.steps or '?'}{loss}"
    progress.update(task, total=beat.steps, completed=beat.step, state=state)


def ledger(run: RunDir, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def prepare_material(model: str | None) -> None:
    """Fill jobs/demo, where the job files look."""
    found = materials(default_cache(), model=model)
    for name, source in (
        ("model", found.model_dir),
        ("ulysses.txt", found.text_path),
        ("lexicon.txt", found.lexicon_path),
    ):
        target = JOBS / "demo" / name
        if target.is_symlink() or target.exists():
            target.unlink()
        target.symlink_to(source)


def main_job(folder: Path) -> tuple[Machine, dict[str, Any]]:
    """P1 and P2 on the real model; the machine vanishes in the middle of P1."""
    machine = Machine(home=folder / "home", store=folder / "store")
    console.print(machine.run("enqueue", str(JOBS / "demo_p1.toml"), str(JOBS / "demo_p2.toml")).rstrip())
    machine.start()
    show_progress(machine, ["demo_p1", "demo_p2"], lambda: machine.reached("demo_p1", 27))
    lost_at = machine.lose("demo_p1")
    console.print(
        f"[bold red]SIGKILL to trainer and daemon at step {lost_at}, home wiped.[/] Start again from the store:"
    )
    machine.start("--take-over")
    show_progress(machine, ["demo_p1", "demo_p2"], machine.is_done)
    resumed = next((row["step"] for row in ledger(machine.run_dir("demo_p1"), "event") if row["event"] == "resume"), 0)
    steps = {job: len(ledger(machine.run_dir(job), "step")) for job in ("demo_p1", "demo_p2")}
    cuts = [{"job": "demo_p1", "at_step": lost_at}]
    figures = {"cuts": cuts, "steps": steps, "resumed_at": resumed, "steps_repeated": max(0, lost_at - resumed)}
    return machine, figures


def show_table(machine: Machine) -> list[dict[str, Any]]:
    """Held-out loss before and after each phase."""
    rows: list[dict[str, Any]] = []
    table = Table(title="held-out text, nats per token", title_justify="left")
    for column in ("", "all", "bits/byte", "new words", "other tokens"):
        table.add_column(column, justify="left" if not column else "right")
    for label, job, which in (("before P1", "demo_p1", 0), ("after P1", "demo_p1", -1), ("after P2", "demo_p2", -1)):
        row = ledger(machine.run_dir(job), "evaluation")[which]
        rows.append({"label": label, **row})
        keys = ("loss", "bits_per_byte", "new_loss", "base_loss")
        table.add_row(label, *(f"{row[key]:.4f}" if row[key] is not None else "–" for key in keys))
    console.print(table)
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".demo", help="where homes and stores go; emptied first")
    parser.add_argument("--model", help="id of a model on the Hugging Face hub, instead of SmolLM2-135M from a package")
    chosen = parser.parse_args(arguments)
    folder: Path = chosen.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    try:
        prepare_material(chosen.model)
        machine, figures = main_job(folder / "main")
        console.print("the same on the tiny job, cut and uncut:")
        proof = prove(folder / "tiny", say=console.print)
        report = machine.run("report", "demo_p1", "demo_p2").strip().splitlines()[-1]
    except (RunnerError, Wake2vecError) as error:
        console.print(f"[bold red]the demo failed:[/] {error}")
        return 1
    rows = show_table(machine)
    console.print(
        f"cuts survived: {len(figures['cuts'])} · steps trained: {sum(figures['steps'].values())}"
        f" · repeated: {figures['steps_repeated']} · {time.monotonic() - started:.0f} s"
    )
    verdict = "[bold green]the same bits[/]" if proof["equal"] else "[bold red]NOT THE SAME[/]"
    console.print(f"tiny job, uncut {str(proof['uncut'])[:16]}, cut and moved {str(proof['cut'])[:16]}: {verdict}")
    console.print(f"report: {report}")
    seconds = round(time.monotonic() - started, 1)
    summary = {"evaluations": rows, **figures, "proof": proof, "report": report, "seconds": seconds}
    (machine.home / "demo.json").write_text(json.dumps(summary, indent=1) + "\n")
    console.print(f"figures: {machine.home / 'demo.json'}")
    return 0 if proof["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
