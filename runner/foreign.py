"""Run any training command as a job: `python -m runner.foreign RUN_DIR`, a trainer that obeys the run directory.

The command gets `{resume_from}` (a checkpoint folder of its own, or nothing), `{checkpoint_dir}` (where it writes its
checkpoints, as folders whose names end in the step, such as `checkpoint-200`) and `{steps}`. Each folder that has come
to rest is packed into a checkpoint of ours, so that it is verified, uploaded, kept and brought back like any other.
What a foreign command cannot promise is that a resumed run ends in the same bits, or that its folder is whole when it
comes to rest: that depends on the command.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from runner.reap import last_line
from wake2vec.errors import GpuBusy
from wake2vec.failpoints import failpoint
from wake2vec.files import digest_file, make_directory, put_in_place, read_json, write_json
from wake2vec.lock import hold_lock
from wake2vec.manifest import ARCHIVE_FILES, MANIFEST, Manifest, manifest_sha256, newest_verified, set_aside
from wake2vec.order import Order
from wake2vec.rundir import Heartbeat, Outcome, Result, RunDir

ARCHIVE, STATE = ARCHIVE_FILES
POLL_SECONDS = 0.5
REST_SECONDS = 2.0  # a folder in which nothing changed for so long is taken as complete
LOCK_PATIENCE_SECONDS = 3.0

Shape = tuple[tuple[str, int, int], ...]  # name, size and time of change of every file


@dataclass(kw_only=True)
class Foreign:
    """One attempt of a foreign command."""

    run: RunDir
    order: Order
    stop: list[str] = field(default_factory=list)
    beats: int = 0
    saved_step: int | None = None
    seen: dict[Path, tuple[Shape, float]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.run.root / "foreign"

    def attempt(self) -> Result:
        self.beat("loading")
        resume_from = self.unpack_newest()
        self.folder.mkdir(exist_ok=True)
        try:
            child = subprocess.Popen(self.command(resume_from), stdin=subprocess.DEVNULL)
        except OSError as error:
            return self.result("failed", "setup", f"the command cannot be run: {error}", "mend command in the job file")
        while child.poll() is None:
            if self.stop:
                child.send_signal(signal.SIGTERM)
                child.wait()
                break
            time.sleep(POLL_SECONDS)
            self.pack_what_rests(REST_SECONDS)
            self.beat("training")
        self.pack_what_rests(0.0 if child.returncode == 0 else REST_SECONDS)
        return self.judge(child.returncode)

    def command(self, resume_from: Path | None) -> list[str]:
        assert self.order.job.command, "checked by the spec"
        values = {
            "{resume_from}": str(resume_from or ""),
            "{checkpoint_dir}": str(self.folder),
            "{steps}": str(self.order.job.steps),
        }
        words = [
            re.sub(r"\{\w+\}", lambda found: values.get(found[0], found[0]), word) for word in self.order.job.command
        ]
        return [sys.executable if words[0] == "python" else words[0], *words[1:]]

    def judge(self, code: int) -> Result:
        if code == 0 and self.saved_step is None:
            return self.result("failed", "training", "the command ended without a checkpoint", "see {checkpoint_dir}")
        if code == 0:
            self.export()
            return self.result("completed", "training", "")
        if self.stop:
            return self.result("yielded", "training", self.stop[0])
        return self.result("failed", "training", f"the command ended with exit code {code}: {last_line(self.run.log)}")

    def result(self, outcome: Outcome, where: str, cause: str, remedy: str = "") -> Result:
        return Result(
            attempt=self.order.attempt,
            outcome=outcome,
            step=self.saved_step or 0,
            steps=self.order.job.steps,
            where=where,
            cause=cause,
            remedy=remedy,
            saved_step=self.saved_step,
        )

    def beat(self, state: str) -> None:
        """A sign of life whenever the command wrote something or used the processor, so that a hang is seen."""
        self.beats = self._work_done()
        heartbeat = Heartbeat(
            attempt=self.order.attempt,
            pid=os.getpid(),
            beat=self.beats,
            state=state,
            step=self.saved_step or 0,
            steps=self.order.job.steps,
            saved_step=self.saved_step,
            written_at=time.time(),
        )
        write_json(self.run.heartbeat, asdict(heartbeat), durable=False)

    def _work_done(self) -> int:
        import psutil

        processes = psutil.Process().children(recursive=True)
        seconds = 0.0
        for process in processes:
            try:
                seconds += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        log = self.run.log.stat().st_size if self.run.log.is_file() else 0
        return int(seconds) + log

    # ---- checkpoints ----------------------------------------------------------------------------------------

    def unpack_newest(self) -> Path | None:
        """The command's own folder of the newest checkpoint that verifies and unpacks."""
        while (found := newest_verified(self.run, self.order.fingerprint)) is not None:
            folder, manifest = found
            arriving = self.run.root / "foreign.arriving"
            shutil.rmtree(arriving, ignore_errors=True)
            try:
                with tarfile.open(folder / ARCHIVE) as archive:
                    archive.extractall(arriving, filter="data")  # no links out, no devices, no absolute names
            except tarfile.TarError as error:
                print(f"{folder / ARCHIVE}: {error}; set aside as {set_aside(folder).name}", flush=True)
                continue
            self.saved_step = manifest.step
            target = self.folder / Path(str((read_json(folder / STATE) or {})["folder"])).name
            shutil.rmtree(target, ignore_errors=True)
            self.folder.mkdir(exist_ok=True)
            os.replace(arriving, target)
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
        final = self.run.checkpoint(step)
        temporary = final.with_name(final.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        make_directory(temporary)
        failpoint("foreign.begin")
        with tarfile.open(temporary / ARCHIVE, "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.add(path, arcname=path.relative_to(folder).as_posix(), recursive=False)
        write_json(temporary / STATE, {"step": step, "folder": folder.name})
        parent = self.run.checkpoint(self.saved_step) if self.saved_step else None
        manifest = Manifest(
            job=self.order.job.name,
            step=step,
            fingerprint=self.order.fingerprint,
            parent=manifest_sha256(parent) if parent and (parent / MANIFEST).is_file() else None,
            probe_loss=None,
            files={name: digest_file(temporary / name) for name in ARCHIVE_FILES},
        )
        write_json(temporary / MANIFEST, manifest.to_json())
        failpoint("foreign.manifest")
        put_in_place(temporary, final)
        self.saved_step = step

    def export(self) -> None:
        """What the command left beside its checkpoints is the result."""
        folders = {folder for _, folder in numbered(self.folder)}
        temporary = self.run.final.with_name("final.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for path in self.folder.iterdir():
            if path not in folders:
                copy: Callable[[Path, Path], object] = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, temporary / path.name)
        put_in_place(temporary, self.run.final)


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """Folders whose names end in a number, by that number."""
    found = [(re.search(r"(\d{1,12})$", path.name), path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]), path) for match, path in found if match and path.is_dir())


def shape_of(folder: Path) -> Shape:
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # renamed while we look: it has not come to rest
        found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return tuple(found)


def main(root: str) -> int:
    run = RunDir(root=Path(root).absolute())
    order = Order.model_validate(read_json(run.order))
    foreign = Foreign(run=run, order=order)

    def on_signal(number: int, frame: FrameType | None) -> None:
        foreign.stop.append(f"asked to stop by {signal.Signals(number).name}")

    give_up = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            with hold_lock(Path(order.gpu_lock), {"pid": os.getpid(), "attempt": order.attempt, "job": order.job.name}):
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, on_signal)
                run.result.unlink(missing_ok=True)
                write_json(run.result, asdict(foreign.attempt()))
                return 0
        except GpuBusy as error:
            if time.monotonic() > give_up:
                print(f"error: {error}", file=sys.stderr)
                return error.exit_code
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
