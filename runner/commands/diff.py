"""diff: where two jobs differ, key by key, and in their texts and models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.jobfile.read import read_job, resolve_inputs
from runner.queue import jobs
from runner.queue.database import Queue, open_queue
from runner.settings import Settings
from wake2vec.contract.order import PLAN_AND_CADENCE

Leaves = dict[str, Any]  # by dotted key


def run(settings: Settings, first: str, second: str, *, as_json: bool) -> int:
    """Print each key whose values differ; 1 where one does, as diff(1). Raises UnknownJob, SpecError."""
    with open_queue(settings.database) as queue:
        here, there = _leaves_of(queue, first), _leaves_of(queue, second)
    changed = {key: (here.get(key), there.get(key)) for key in here | there if here.get(key) != there.get(key)}
    if as_json:
        table = [
            {"key": key, "first": one, "second": other, "decides": decides(key)}
            for key, (one, other) in changed.items()
        ]
        print(json.dumps({"format": 1, "differences": table}, ensure_ascii=False, indent=1))
    else:
        for key, (one, other) in changed.items():
            note = "" if decides(key) else "  (never changes the result)"
            print(f"{key}: {_shown(one)} | {_shown(other)}{note}")
        if not changed:
            print(f"{first} and {second} are the same")
    return int(bool(changed))


def decides(key: str) -> bool:
    """Whether the result depends on it: on the job it stands on, too, whose name a fingerprint leaves out."""
    free = [one for one in PLAN_AND_CADENCE if one != "after"]
    return not any(key == one or key.startswith(f"{one}.") for one in free)


def _leaves_of(queue: Queue, name: str) -> Leaves:
    """Of a job in the queue, or of a job file."""
    file = Path(name)
    if file.suffix == ".toml":
        resolved = resolve_inputs(read_job(file), file.parent, str(file))
        job, inputs = resolved.job, resolved.inputs
    else:
        row = jobs.get_job(queue, name)
        job, inputs = row.spec, row.inputs
    texts = {f"{item.role} {item.name}": item.sha256[:12] for item in inputs}
    return dict(_flat(job.model_dump(mode="json"), "")) | texts


def _flat(table: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def _shown(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)
