"""new: write job files that come with the program into this folder, to be edited, and what they need beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.commands.plan import shape_of
from runner.commands.setup.schema import schema_text
from runner.forecast import forecast, load_of
from runner.jobfile.bundled import JOBS, SCHEMA, TEXTS, companions, job_file, names
from runner.jobfile.read import read_job
from runner.machine.vram import OLDEST_CAPABILITY, ON_A_CPU
from wake2vec.contract.budget import CARDS
from wake2vec.contract.errors import SpecError
from wake2vec.contract.files import write_atomic
from wake2vec.contract.spec import CommandSpec

HEADING = f"{'name':<14} {'weights':>7}  {'card':<5} what it is"
KEPT = "kept as you have it"
NEW_WORDS = 44_000  # as in the Wake; a list of one's own is counted by `plan`


def run(wanted: Sequence[str], *, as_list: bool, as_json: bool) -> None:
    """Raises RunnerError for a name that there is not; what lies here already is never written over."""
    if as_list or not wanted:
        table = [describe(name) for name in names()]
        lines = "\n".join([HEADING, *map(_line, table)])
        print(json.dumps({"format": 1, "jobs": table}, indent=1) if as_json else lines)
        return
    written = _with_sources([name.removesuffix(".toml") for name in wanted])
    paths = [Path(f"{name}.toml") for name in written] + [path for name in written for path in companions(name)]
    told = [_write(path) for path in dict.fromkeys(paths)]
    if as_json:
        print(json.dumps({"format": 1, "files": told}, indent=1))
        return
    for one in told:
        if one["file"].endswith(".toml") or one["state"] == KEPT:
            print(f"{one['file']}: {one['state']}")
    if os.path.exists(TEXTS) and len(os.listdir(TEXTS)) == 1:
        print(f"put your texts into {TEXTS}/ first; its README.md names them")
    print(f"next: wake2vec-runner enqueue {' '.join(f'{name}.toml' for name in written)}")


def describe(name: str) -> dict[str, Any]:
    """What a job file is for, the size of its model, and the smallest card that its fastest whole plan fits."""
    path = job_file(name)
    about = path.read_text("utf-8").splitlines()[1].removeprefix("# ")
    spec = read_job(path)
    found: dict[str, Any] = {"name": name, "parameters": None, "card": None, "about": about}
    if isinstance(spec, CommandSpec):
        return found
    try:
        shape = shape_of(spec, path)
    except SpecError:
        return found
    weights = shape.body_weights + shape.matrix_rows * shape.width * (1 if shape.tied else 2)
    found["parameters"] = weights
    if spec.model.load in ON_A_CPU:
        return found | {"card": "none"}
    cards = [card for card in CARDS.values() if card.capability >= OLDEST_CAPABILITY]
    fitting = (card.name for card in cards if forecast(spec, load_of(spec, shape, NEW_WORDS), card).fits)
    return found | {"card": next(fitting, None)}


def _line(job: dict[str, Any]) -> str:
    weights = job["parameters"]
    size = "" if weights is None else f"{weights / 1e9:.1f} B" if weights >= 1e8 else f"{weights / 1e6:.1f} M"
    return f"{job['name']:<14} {size:>7}  {(job['card'] or '?') if weights else '':<5} {job['about']}".rstrip()


def _with_sources(wanted: Sequence[str]) -> list[str]:
    """The jobs, each after the one that it builds on."""
    return list(dict.fromkeys(one for name in wanted for one in _chain(name)))


def _chain(name: str) -> list[str]:
    before = read_job(job_file(name)).after
    return [*(_chain(before) if before else ()), name]


def _write(path: Path) -> dict[str, str]:
    """A file that a person may have edited stays as it is."""
    content = schema_text().encode() if path.name == SCHEMA else (JOBS / path).read_bytes()
    if path.is_file():
        state = "is there already" if path.read_bytes() == content else KEPT
        return {"file": str(path), "state": state}
    write_atomic(path, content)
    return {"file": str(path), "state": "written"}
