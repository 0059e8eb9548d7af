"""doctor: is everything here that a run needs? Home, disk, libraries, card, store, each tried and not assumed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runner import figures
from runner.errors import DatabaseCorrupt, RunnerError
from runner.home import check_home
from runner.queue.database import check_integrity
from runner.session import this_machine
from runner.settings import Settings
from runner.store.open import open_store
from runner.store.probes import PROBES, Finding, Probe, Scratch, examine
from runner.vram import read_cards
from wake2vec.lock import read_lock

NEEDED = ("torch", "transformers", "peft", "bitsandbytes", "safetensors")
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
    for name in NEEDED:
        yield _library(name)
    cards = [f"{card.name}, {card.used_mib:,} of {card.total_mib:,} MiB used" for card in read_cards()]
    yield _found("card", "; ".join(cards) or "none: jobs train on the CPU, slowly")
    yield from _store(settings)


def _found(name: str, detail: str, *, passed: bool = True, meaning: str = "") -> Finding:
    return Finding(name=name, passed=passed, detail=detail, meaning=meaning)


def _home(settings: Settings) -> Finding:
    try:
        check_home(settings.home, allow_network=False)
    except RunnerError as error:
        return _found("home", str(error), passed=False, meaning="the queue and the locks live there")
    alive = read_lock(settings.home / "daemon.lock")
    return _found("home", f"{settings.home}" + (f", a runner is at work (pid {alive.get('pid')})" if alive else ""))


def _disk(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    meaning = f"large models need about {figures.size(LEAST_FREE_BYTES)}; small ones will do with less"
    return _found("disk", f"{figures.size(free)} free", passed=free > LEAST_FREE_BYTES // 20, meaning=meaning)


def _database(settings: Settings) -> Finding:
    if not settings.database.is_file():
        return _found("queue", "empty")
    try:
        check_integrity(settings.database)
    except DatabaseCorrupt as error:
        return _found("queue", str(error), passed=False, meaning="the next start rebuilds it from the store")
    return _found("queue", f"{settings.database} is sound")


def _library(name: str) -> Finding:
    try:
        return _found(name, version(name))
    except PackageNotFoundError:
        return _found(name, "not installed", passed=False, meaning=f"training needs it: pip install {name}")


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
        from runner.store.drive_probes import drive_scratch

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
    yield Scratch(open=lambda: open_store(place, settings.home), folder=folder), PROBES
