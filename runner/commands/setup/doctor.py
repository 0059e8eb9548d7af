"""doctor: is everything here that a run needs? Home, disk, card, a training of two steps, store: tried, not assumed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runner import figures
from runner.children import importing_safely, without_secrets
from runner.errors import RunnerError
from runner.jobfile.bundled import JOBS
from runner.jobfile.inputs import keep_input
from runner.jobfile.read import resolve_inputs
from runner.machine.home import check_home
from runner.machine.session import mounted_drive, this_machine
from runner.machine.vram import no_card, read_cards
from runner.queue.database import open_queue
from runner.queue.sqlite import check_integrity
from runner.settings import Settings
from runner.store.open import open_store
from runner.store.probes import PROBES, Finding, Probe, Scratch, examine
from wake2vec.contract.files import write_json
from wake2vec.contract.lock import read_lock
from wake2vec.contract.order import Order, fingerprint
from wake2vec.contract.rundir import RunDir, read_result
from wake2vec.contract.spec import JOB_SPEC

SHOWN = ("torch", "transformers", "peft", "bitsandbytes", "datasets")
TRIAL_STEPS, TRIAL_WORDS = 2, 10
# The second attempt loads what the first one saved.
TWICE = "import sys; from wake2vec.__main__ import main; sys.exit(main(sys.argv[1:]) or main(sys.argv[1:]))"
LEAST_FREE_BYTES = 20 << 30  # a 14B model in 4 bits, its download and two checkpoints


def run(settings: Settings, *, as_json: bool) -> None:
    """Exits with 1 when something is missing that a run needs."""
    findings = []
    for finding in _examine(settings):
        findings.append(finding)
        if not as_json:
            print(f"{'ok  ' if finding.passed else 'FAIL'} {finding.name}: {finding.detail}", flush=True)
            if not finding.passed:
                print(f"     {finding.meaning}")
    if as_json:
        table = [{"name": one.name, "ok": one.passed, "detail": one.detail, "meaning": one.meaning} for one in findings]
        print(json.dumps({"format": 1, "findings": table}, ensure_ascii=False, indent=1))
    sys.exit(0 if all(finding.passed for finding in findings) else 1)


def _examine(settings: Settings) -> Iterator[Finding]:
    machine = this_machine(os.environ)
    yield _found("machine", f"{machine.platform}, Python {platform.python_version()}, {os.cpu_count()} cores")
    yield _home(settings)
    yield _disk(settings.home)
    yield _database(settings)
    yield _found("libraries", ", ".join(f"{name} {_version(name)}" for name in SHOWN))
    cards = read_cards()
    names = [f"{card.name}, {card.used} used" for card in cards]
    missing = no_card(machine.platform, cards, {"a large job": "nf4"})
    yield _found("card", "; ".join(names) or "none: jobs train on the CPU, slowly", passed=not missing, meaning=missing)
    yield _trial()
    if warning := mounted_drive(settings.store_url):
        yield _found("store", settings.store_url, passed=False, meaning=warning)
    yield from _store(settings)


def _found(name: str, detail: str, *, passed: bool = True, meaning: str = "") -> Finding:
    return Finding(name=name, passed=passed, detail=detail, meaning=meaning)


def _home(settings: Settings) -> Finding:
    try:
        check_home(settings.home, allow_network=False)
    except RunnerError as error:
        return _found("home", str(error), passed=False, meaning="the queue and the locks live there")
    alive = read_lock(settings.daemon_lock)
    return _found("home", f"{settings.home}" + (f", a runner is at work (pid {alive.get('pid')})" if alive else ""))


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    meaning = f"large models need about {figures.size(LEAST_FREE_BYTES)}; small ones will do with less"
    return _found("disk", f"{figures.size(free)} free", passed=free > LEAST_FREE_BYTES // 20, meaning=meaning)


def _database(settings: Settings) -> Finding:
    place, meaning = settings.database, "the next start rebuilds it from the store"
    if isinstance(place, Path) and not place.is_file():
        return _found("queue", "empty")
    try:
        if isinstance(place, Path):
            check_integrity(place)
        else:
            meaning = "claims wait for it, what trains goes on"
            open_queue(place).close()
    except RunnerError as error:
        return _found("queue", str(error), passed=False, meaning=meaning)
    return _found("queue", f"{place} is sound")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"


def _trial() -> Finding:
    """Train for real, in a process of its own: add words, read a text, step on a 4-bit body, save, load that again."""
    with tempfile.TemporaryDirectory(prefix="wake2vec-doctor-") as folder:
        run = RunDir(root=Path(folder) / "run")
        write_json(run.order, trial_order(Path(folder)).model_dump(mode="json"))
        began = time.monotonic()
        environment = importing_safely(without_secrets(os.environ))
        command = [sys.executable, "-P", "-c", TWICE, str(run.root)]
        child = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        result = read_result(run)
    if child.returncode == 0 and result is not None:
        done = f"{TRIAL_WORDS} words added, {TRIAL_STEPS} steps on an NF4 body, saved and loaded again"
        return _found("training", f"{done} in {time.monotonic() - began:.0f} s")
    lines = child.stderr.strip().splitlines() or child.stdout.strip().splitlines() or ["no word"]
    cause = result.cause if result is not None and result.cause else lines[-1]
    return _found("training", cause, passed=False, meaning="no job can train here before that is mended")


def trial_order(folder: Path) -> Order:
    """The smallest real job, with a body in NF4 whatever the machine."""
    words = (JOBS / "tiny" / "lexicon.txt").read_text("utf-8").split()[:TRIAL_WORDS]
    (folder / "words.txt").write_text("\n".join(words), "utf-8")
    table = {
        "name": "trial",
        "phase": "p1",
        "model": {"base": str(JOBS / "tiny" / "model"), "load": "nf4"},
        "vocab": {"lexicon": "words.txt"},
        "data": {"corpus": str(JOBS / "tiny" / "corpus.txt"), "seq_len": 64},
        "train": {"steps": TRIAL_STEPS, "batch": 2, "lr": 1e-3},
        "evaluate": {"max_windows": 2, "samples": 0, "hopes": False},
    }
    found = resolve_inputs(JOB_SPEC.validate_python(table), folder, "doctor")
    for sha256, path in found.files.items():
        keep_input(path, sha256, folder)
    mark, lock = fingerprint(found.job, found.inputs), str(folder / "gpu.lock")
    return Order(
        job=found.job, fingerprint=mark, attempt=1, inputs=found.inputs, inputs_folder=str(folder), gpu_lock=lock
    )


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryDirectory() as folder, _scratch(settings, Path(folder)) as (scratch, probes):
            for finding in examine(scratch, probes):
                yield Finding(
                    name=f"store, {finding.name}",
                    passed=finding.passed,
                    detail=finding.detail,
                    meaning=finding.meaning,
                )
    except (RunnerError, OSError) as error:
        yield _found("store", str(error), passed=False, meaning="without a store nothing outlives the session")


@contextmanager
def _scratch(settings: Settings, folder: Path) -> Iterator[tuple[Scratch, tuple[Probe, ...]]]:
    """A place of its own in the same store, removed afterwards."""
    scheme, _, rest = settings.store_url.partition(":")
    if scheme == "drive":
        from runner.store.drive.probes import drive_scratch

        with drive_scratch(settings.home, os.environ, folder) as found:
            yield found
        return
    if scheme == "dir":
        parent = Path(rest).expanduser().absolute()
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=parent) as place:
            yield Scratch(open=lambda: open_store(f"dir:{place}", settings.home), folder=folder), PROBES
        return
    place = f"{settings.store_url.rstrip('/')}/.doctor-{os.getpid()}"
    store = open_store(place, settings.home)
    if scheme == "hub":
        store.renew_root()  # makes the repository, where there is none
    yield Scratch(open=lambda: open_store(place, settings.home), folder=folder), PROBES
    store.delete(*(stat.id for stat in store.find("doctor")))
