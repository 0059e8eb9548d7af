"""The whole thing on a real model and a real text, with the plug pulled in the middle: `make demo`.

Does what a user does, through the command line: enqueue, start, lose the machine, start on a new one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.material.materials import default_cache, materials
from runner.children import importing_safely, python
from wake2vec.contract.errors import Wake2vecError
from wake2vec.contract.lock import read_lock
from wake2vec.contract.manifest import saved_steps
from wake2vec.contract.rundir import RunDir, read_heartbeat

ROOT = Path(__file__).parent.parent
JOBS = ROOT / "jobs"
# A demo looks often and does not wait before it tries again.
SETTINGS = "tick_seconds = 0.3\nsync_seconds = 0.5\nbackoff_first_seconds = 0\n"
console = Console(highlight=False)


class DemoFailed(Exception):
    """A command of the demo did not do what it must."""


@dataclass(kw_only=True)
class Machine:
    """A home that may vanish, and the store that stays."""

    home: Path
    store: Path
    daemon: subprocess.Popen[bytes] | None = None
    cuts: list[dict[str, Any]] = field(default_factory=list)

    def command(self, *arguments: str) -> list[str]:
        return python("runner", "--home", self.home, "--store", f"dir:{self.store}", *arguments)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, env=here())
        if done.returncode:
            raise DemoFailed(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *arguments: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "settings.toml").write_text(SETTINGS)
        with (self.home.parent / "start.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self.command("start", "--until-empty", *arguments),
                stdout=log, stderr=log, start_new_session=True, env=here(),
            )  # fmt: skip

    def run_dir(self, job: str) -> RunDir:
        return RunDir(root=self.home / "runs" / job)

    def lose(self, job: str) -> None:
        """SIGKILL to daemon and trainer, then everything on the machine is gone. Only the store is left."""
        assert self.daemon, "started before"
        beat = read_heartbeat(self.run_dir(job))
        self.daemon.kill()
        self.daemon.wait()
        holder = read_lock(self.home / "locks" / "gpu0.lock")
        if holder:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(holder["pid"], signal.SIGKILL)
        shutil.rmtree(self.home)
        self.cuts.append({"job": job, "at_step": beat.step if beat else 0})

    def watch(self, jobs: list[str], until: Callable[[], bool]) -> None:
        """Show how far the jobs are until something is true; raises DemoFailed when the daemon gives up."""
        columns = (
            TextColumn("{task.description:>8}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as progress:
            tasks = {job: progress.add_task(job, total=None, state="waits", start=False) for job in jobs}
            while not until():
                assert self.daemon, "started before"
                if self.daemon.poll() not in (None, 0):
                    raise DemoFailed((self.home.parent / "start.log").read_text()[-3000:])
                for job, task in tasks.items():
                    self._show(progress, task, job)
                time.sleep(0.2)

    def _show(self, progress: Progress, task: Any, job: str) -> None:
        beat = read_heartbeat(self.run_dir(job))
        if beat is None:
            return
        progress.start_task(task)
        share = f" {beat.progress:.0%}" if beat.progress is not None else ""
        loss = f", loss {beat.loss:.2f}" if beat.loss is not None else ""
        state = f"{beat.state}{share}: step {beat.step} of {beat.steps or '?'}{loss}"
        progress.update(task, total=beat.steps, completed=beat.step, state=state)

    def reached(self, job: str, step: int) -> bool:
        beat = read_heartbeat(self.run_dir(job))
        return beat is not None and beat.step >= step and bool(saved_steps(self.run_dir(job)))

    def is_done(self) -> bool:
        assert self.daemon, "started before"
        return self.daemon.poll() == 0


def here() -> dict[str, str]:
    """Surroundings in which the program is the one that lies here, installed or not."""
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    return importing_safely(os.environ | {"PYTHONPATH": os.pathsep.join(paths)})


def ledger(run: RunDir, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def result_hash(run: RunDir) -> str:
    """sha256 over the final tensors, the optimizer's state and every measured loss."""
    newest = run.checkpoint(saved_steps(run)[0])
    digest = hashlib.sha256()
    for name in ("trainable.safetensors", "optimizer.safetensors"):
        digest.update((newest / name).read_bytes())
    for row in ledger(run, "step") + ledger(run, "evaluation"):
        digest.update(json.dumps([row["step"], row["loss"]]).encode())
    return digest.hexdigest()


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


def tiny_proof(folder: Path) -> dict[str, Any]:
    """The tiny job twice: left alone, and killed in the middle. The hashes must be the same."""
    hashes = []
    for name in ("uncut", "cut"):
        machine = Machine(home=folder / name / "home", store=folder / name / "store")
        machine.run("enqueue", str(JOBS / "tiny_p1.toml"))
        machine.start()
        if name == "cut":
            machine.watch(["tiny_p1"], until=lambda machine=machine: machine.reached("tiny_p1", 25))  # type: ignore[misc]
            machine.lose("tiny_p1")
            machine.start("--take-over")
        machine.watch(["tiny_p1"], until=machine.is_done)
        hashes.append(result_hash(machine.run_dir("tiny_p1")))
    return {"uncut": hashes[0], "cut": hashes[1], "equal": hashes[0] == hashes[1]}


def main_job(folder: Path) -> tuple[Machine, dict[str, Any]]:
    """P1 and P2 on the real model; the machine vanishes in the middle of P1."""
    machine = Machine(home=folder / "home", store=folder / "store")
    console.print(machine.run("enqueue", str(JOBS / "demo_p1.toml"), str(JOBS / "demo_p2.toml")).rstrip())
    machine.start()
    machine.watch(["demo_p1", "demo_p2"], until=lambda: machine.reached("demo_p1", 27))
    machine.lose("demo_p1")
    lost_at = machine.cuts[-1]["at_step"]
    console.print(
        f"[bold red]SIGKILL to trainer and daemon at step {lost_at}, home wiped.[/] Start again from the store:"
    )
    machine.start("--take-over")
    machine.watch(["demo_p1", "demo_p2"], until=machine.is_done)
    resumed = next((row["step"] for row in ledger(machine.run_dir("demo_p1"), "event") if row["event"] == "resume"), 0)
    steps = {job: len(ledger(machine.run_dir(job), "step")) for job in ("demo_p1", "demo_p2")}
    figures = {"cuts": machine.cuts, "steps": steps, "resumed_at": resumed, "steps_repeated": max(0, lost_at - resumed)}
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
        proof = tiny_proof(folder / "tiny")
        report = machine.run("report", "demo_p1", "demo_p2").strip().splitlines()[-1]
    except (DemoFailed, Wake2vecError) as error:
        console.print(f"[bold red]the demo failed:[/] {error}")
        return 1
    rows = show_table(machine)
    console.print(
        f"cuts survived: {len(machine.cuts)} · steps trained: {sum(figures['steps'].values())}"
        f" · repeated: {figures['steps_repeated']} · {time.monotonic() - started:.0f} s"
    )
    verdict = "[bold green]the same bits[/]" if proof["equal"] else "[bold red]NOT THE SAME[/]"
    console.print(f"tiny job, uncut {proof['uncut'][:16]}, cut and moved {proof['cut'][:16]}: {verdict}")
    console.print(f"report: {report}")
    seconds = round(time.monotonic() - started, 1)
    summary = {"evaluations": rows, **figures, "proof": proof, "report": report, "seconds": seconds}
    (machine.home / "demo.json").write_text(json.dumps(summary, indent=1) + "\n")
    console.print(f"figures: {machine.home / 'demo.json'}")
    return 0 if proof["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
