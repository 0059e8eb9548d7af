"""Phase `command`: any training command under the queue, each folder that it saves made a checkpoint. Imports no torch.

The command gets `{resume_from}` (a checkpoint folder of its own, or nothing), `{checkpoint_dir}` (where it writes its
checkpoints, as folders whose names end in the step, such as `checkpoint-200`) and `{steps}`. Each folder that has come
to rest is packed into a checkpoint of ours, so that it is verified, uploaded, kept and brought back like any other.
What such a command cannot promise is that a resumed run ends in the same bits, or that its folder is whole when it
comes to rest: that depends on the command.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import last_line, read_json, whole_folder, write_json
from wake2vec.contract.manifest import (
    ARCHIVE_FILES,
    MANIFEST,
    manifest_sha256,
    newest_verified,
    set_aside,
    write_manifest,
)
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import Result, RunDir
from wake2vec.contract.spec import CommandSpec
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.stopping import Stop

ARCHIVE, STATE = ARCHIVE_FILES
POLL_SECONDS = 0.5
REST_SECONDS = 2.0  # a folder in which nothing changed for so long is taken as complete

Shape = tuple[tuple[str, int, int], ...]  # name, size and time of change of every file


@dataclass(kw_only=True)
class CommandTrainer:
    """One attempt of a command."""

    run: RunDir
    order: Order
    job: CommandSpec
    stop: Stop
    pulse: HeartbeatWriter
    work_done: int = 0
    seen: dict[Path, tuple[Shape, float]] = field(default_factory=dict)  # since when a folder has looked like this

    @property
    def folder(self) -> Path:
        return self.run.root / "foreign"  # its name since 0.1.0

    @property
    def saved_step(self) -> int | None:
        return self.pulse.now.saved_step

    def train(self) -> Result:
        self.pulse.beat(steps=self.job.steps)
        self.folder.mkdir(exist_ok=True)
        command = self.command(self.unpack_newest())
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=own_environment())
        except OSError as error:
            remedy = "mend command in the job file"
            return self.pulse.result("failed", "setup", f"the command cannot be run: {error}", remedy)
        while child.poll() is None:
            if self.stop.is_asked:
                child.terminate()
                child.wait()
                break
            time.sleep(POLL_SECONDS)
            self.pack_what_rests(REST_SECONDS)
            self.beat()
        self.pack_what_rests(0.0 if child.returncode == 0 else REST_SECONDS)
        return self.judge(child.returncode)

    def command(self, resume_from: Path | None) -> list[str]:
        values = {
            "{resume_from}": str(resume_from or ""),
            "{checkpoint_dir}": str(self.folder),
            "{steps}": str(self.job.steps),
        }
        first, *rest = self.job.command
        words = [sys.executable if first == "python" else first, *rest]
        return [re.sub(r"\{\w+\}", lambda found: values.get(found[0], found[0]), word) for word in words]

    def judge(self, code: int) -> Result:
        if code == 0 and self.saved_step is None:
            said = "the command ended without a checkpoint"
            return self.pulse.result("failed", "training", said, "see {checkpoint_dir}")
        if code == 0:
            self.export()
            return self.pulse.result("completed", "training")
        if self.stop.is_asked:
            return self.pulse.result("yielded", "training", self.stop.reason)
        said = f"the command ended with exit code {code}: {last_line(self.run.log)}"
        return self.pulse.result("failed", "training", said)

    def beat(self) -> None:
        """A sign of life whenever the command wrote something or used the processor, so that a hang is seen."""
        before, self.work_done = self.work_done, work_of(self.run.log)
        if self.work_done != before or self.pulse.now.state != "training":
            self.pulse.beat(state="training")

    # ---- checkpoints ----------------------------------------------------------------------------------------

    def unpack_newest(self) -> Path | None:
        """The command's own folder of the newest checkpoint that verifies and unpacks."""
        while (found := newest_verified(self.run, self.order.fingerprint)) is not None:
            folder, manifest = found
            target = self.folder / Path(str((read_json(folder / STATE) or {})["folder"])).name
            try:
                # not beside the target: what a kill leaves there would count as a result of the command
                arriving = self.folder.with_suffix(".arriving")
                with whole_folder(target, arriving), tarfile.open(folder / ARCHIVE) as archive:
                    archive.extractall(arriving, filter="data")  # no links out, no devices, no absolute names
            except tarfile.TarError as error:
                print(f"{folder / ARCHIVE}: {error}; set aside as {set_aside(folder).name}", flush=True)
                continue
            self.pulse.beat(step=manifest.step, saved_step=manifest.step)
            self.seen[target] = (shape_of(target), 0.0)
            return target
        return None

    def pack_what_rests(self, rest_seconds: float) -> None:
        """Make a checkpoint of every folder beyond the last one that no longer changes, oldest first."""
        now = time.monotonic()
        for step, folder in numbered(self.folder):
            if self.saved_step is not None and step <= self.saved_step:
                continue
            shape = shape_of(folder)
            known, since = self.seen.get(folder, ((), now))
            if shape != known:
                self.seen[folder] = (shape, now)
                since = now
            if shape and now - since >= rest_seconds:
                self.pack(step, folder)

    def pack(self, step: int, folder: Path) -> None:
        parent = self.run.checkpoint(self.saved_step or 0)
        with whole_folder(self.run.checkpoint(step)) as packed:
            failpoint("command.begin")
            with tarfile.open(packed / ARCHIVE, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False)
            write_json(packed / STATE, {"step": step, "folder": folder.name})
            write_manifest(
                packed,
                ARCHIVE_FILES,
                job=self.job.name,
                step=step,
                fingerprint=self.order.fingerprint,
                parent=manifest_sha256(parent) if (parent / MANIFEST).is_file() else None,
            )
            failpoint("command.manifest")
        self.pulse.beat(step=step, saved_step=step)

    def export(self) -> None:
        """What the command left beside its checkpoints is the result."""
        own = {folder.name for _, folder in numbered(self.folder)}
        with whole_folder(self.run.final) as final:
            top = str(self.folder)
            shutil.copytree(top, final, ignore=lambda place, _: own if place == top else set(), dirs_exist_ok=True)


def own_environment() -> dict[str, str]:
    """As the person set it: what this process may not import, their command may."""
    environment = dict(os.environ)
    if "WAKE2VEC_PYTHONPATH" in environment:
        environment["PYTHONPATH"] = environment.pop("WAKE2VEC_PYTHONPATH")
    return environment


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Folders whose names end in a number, by that number."""
    found = [(re.search(r"(\d{1,12})$", path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def shape_of(folder: Path) -> Shape:
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # renamed while we look: it has not come to rest
            status = path.stat()
            found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(found)


def work_of(log: Path) -> int:
    """What the command has done so far: seconds on the processor, and what it printed."""
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:2])
    return int(seconds) + (log.stat().st_size if log.is_file() else 0)
