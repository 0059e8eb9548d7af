"""enqueue: check job files, freeze them with their inputs, and put them into the queue, all or none."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from runner import figures
from runner.commands.results.fetch import bring_jobs, hand_in
from runner.commands.store_room import foretell
from runner.commands.taken import StoredJobs, stored_jobs
from runner.errors import JobExists, RunnerError
from runner.jobfile.checked import JobFile
from runner.jobfile.groupcheck import groups_fit
from runner.jobfile.overrides import Pair
from runner.jobfile.read import name_of, read_job, read_table, resolve_inputs
from runner.jobfile.source_job import SourceJob, on_top_of, source_faults, source_notes
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.queue.ledger import add_event
from runner.queue.rows import Job
from runner.settings import Settings
from runner.states import State, count_segments
from wake2vec.contract.errors import Fault, SpecError
from wake2vec.contract.files import at, counted
from wake2vec.contract.lock import read_lock
from wake2vec.contract.spec import JobSpec
from wake2vec.contract.tables import LONGEST_NAME


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a person wants the files queued: `pairs` stand for what a file says, `if_new` passes over known jobs."""

    again: bool = False
    if_new: bool = False
    only_check: bool = False
    pairs: Sequence[Pair] = ()
    variants: Sequence[tuple[Path, Sequence[Pair]]] = ()  # more files, each with values of its own; of a study


def run(settings: Settings, files: Sequence[Path], asked: Asked, *, as_json: bool, quiet: bool = False) -> None:
    """Raises SpecError with every fault of every file, JobExists, HomeUnusable; then nothing is queued.

    With `if_new` jobs of the store are fetched first, and files of jobs that are known are passed over.
    """
    if len(files) > 1 and any(key == "name" for key, _ in asked.pairs):
        raise RunnerError("--name: one name for several files; queue them one by one")
    with open_queue(settings.database) as queue:
        if asked.if_new:
            bring_jobs(settings, queue)
            states = {job.name: job.state for job in jobs.list_jobs(queue)}
            files = new_ones(files, asked.pairs, states, quiet=as_json or quiet)
            new = [one for one in asked.variants if dict(one[1]).get("name") not in states]
            asked = replace(asked, variants=new)
        entries = check_files(files, jobs.list_jobs(queue), settings, asked)
        _require_rows(entries)
        if asked.only_check:
            show(settings, entries, is_queued=False, as_json=as_json)
            return
        for entry in entries:
            entry.keep_texts(settings.inputs)
        paths = {entry.job.name: entry.file.absolute() for entry in entries}
        jobs.add_jobs(
            queue, [entry.row for entry in entries], time.time(), again=asked.again or bool(asked.variants), paths=paths
        )
        for entry in entries:
            if entry.changed:
                add_event(
                    queue, time.time(), "set", f"{entry.job.name}: queued with {entry.changed}", job=entry.job.name
                )
        hand_in(settings, queue, [entry.job.name for entry in entries])
    if not quiet:
        show(settings, entries, is_queued=True, as_json=as_json)


def new_ones(files: Sequence[Path], pairs: Sequence[Pair], states: Mapping[str, State], *, quiet: bool) -> list[Path]:
    """The files whose job is not known yet; the others need not even be there."""
    found = []
    for file in files:
        name = dict(pairs).get("name") or name_of(file)
        if name not in states:
            found.append(file)
        elif not quiet:
            print(f"{name}: is {states[name]} already, and goes on as it was queued; {file.name} is passed over")
    return found


def show(settings: Settings, entries: Sequence[JobFile], *, is_queued: bool, as_json: bool) -> None:
    """Say what was queued, or could be."""
    if as_json:
        print(json.dumps(_as_json(entries, is_queued=is_queued), ensure_ascii=False, indent=1))
        return
    print("\n".join(_as_text(entries, is_queued=is_queued)), flush=True)
    for line in foretell(settings, [(entry.job, entry.file) for entry in entries]):
        print(line)
    if not is_queued:
        print("nothing was queued: --dry-run")
        return
    is_daemon_here = read_lock(settings.daemon_lock) is not None
    print("the runner at work here will pick it up" if is_daemon_here else "next: wake2vec-runner start")


def _require_rows(entries: Sequence[JobFile]) -> None:
    """A P2 or P3 with words of its own stands on the rows of an old run, which `enqueue` has no way to name."""
    for entry in entries:
        if entry.job.phase in ("p2", "p3") and entry.job.vocab is not None and entry.job.after is None:
            before = "P1" if entry.job.phase == "p2" else "P2"
            take_over = f"wake2vec-runner import OLD... --into {quote(str(entry.file))}"
            problem = f"a {entry.job.phase.upper()} takes its words from a P1; {take_over}"
            problem += f", or name its {before} with after instead"
            raise SpecError(str(entry.file), [Fault(key="vocab", problem=problem)])


def check_files(files: Sequence[Path], queued: Sequence[Job], settings: Settings, asked: Asked) -> list[JobFile]:
    """Read every file, then look at all of them together, and at the store.

    Raises SpecError with every fault of every file, JobExists, RunnerError for an address that can be no store.
    """
    stored = stored_jobs(settings)
    taken = {*stored.jobs, *(job.name for job in queued)}
    states = {job.name: job.state for job in queued}
    known = {job.name: _known(job, settings.inputs) for job in queued}
    renamed: dict[str, str] = {}
    faulty: dict[str, SpecError] = {}
    entries: list[JobFile] = []
    for file, pairs in [*((file, asked.pairs) for file in files), *asked.variants]:
        try:
            job = read_job(file, pairs)
            job = _rename(job, taken, renamed) if asked.again else job
            if any(entry.job.name == job.name for entry in entries):
                raise SpecError(str(file), [Fault(key="name", problem=f"{job.name} comes twice in this call")])
            entry = replace(_check(file, job, known, faulty), changed=changes(file, pairs))
        except SpecError as error:
            faulty[str(dict(pairs).get("name", file.stem))] = error
            continue
        entries.append(entry)
        taken.add(job.name)
        found = entry.resolved
        known[job.name] = SourceJob(
            spec=found.job, inputs=found.inputs, steps=entry.steps, state=State.QUEUED, files=found.files
        )
    if faulty:
        raise _joined(list(faulty.values()))
    for name in (entry.job.name for entry in entries if entry.job.name in states):
        is_over = states[name] in (State.CANCELLED, State.FAILED)
        goes_on = f"`retry {name}` queues that one again" if is_over else f"`extend {name} STEPS` gives it more steps"
        raise JobExists(
            f"{name}: a job of that name is {states[name]}; `status` shows it, {goes_on}, "
            f"--again trains it once more as {free_name(name, taken)}"
        )
    return [_compared(entry, stored, taken) for entry in entries]


def _compared(entry: JobFile, stored: StoredJobs, taken: Container[str]) -> JobFile:
    """With a note of what the store knows of the job. Raises JobExists where that is another one."""
    job = entry.job
    refusal = stored.refusal(job, entry.fingerprint, free_name(job.name, taken))
    if refusal:
        raise JobExists(refusal)
    if stored.problem:
        note = f"the store could not be asked whether the name {job.name} is free there: {stored.problem}"
    elif job.name in stored.jobs:
        note = f"{stored.place} holds this very job: `start` goes on from what is there"
    else:
        return entry
    return replace(entry, notes=[*entry.notes, note])


def _check(file: Path, job: JobSpec, known: Mapping[str, SourceJob], faulty: Mapping[str, SpecError]) -> JobFile:
    resolved = resolve_inputs(job, file.parent, str(file))
    # A source that comes with faults of its own is not missing.
    faults = [] if job.after in faulty else source_faults(resolved.job, resolved.inputs, known)
    if not faults:
        resolved = on_top_of(resolved, known)
        unfit, told = groups_fit(resolved, known)
        faults += unfit
    if faults:
        raise SpecError(str(file), faults)
    notes = [*resolved.remarks, *told, *source_notes(resolved.job, resolved.inputs, known)]
    return JobFile(file=file, resolved=resolved, notes=notes)


def changes(file: Path, pairs: Sequence[Pair]) -> str:
    table = read_table(file)
    olds = [(key, value, at(table, key.split("."))) for key, value in pairs]
    return ", ".join(
        f"{key} = {json.dumps(value)}" + ("" if old is None else f" (the file says {json.dumps(old)})")
        for key, value, old in olds
    )


def _known(job: Job, kept: Path) -> SourceJob:
    files = {item.sha256: kept / item.sha256 for item in job.inputs if item.role != "model"}
    return SourceJob(spec=job.spec, inputs=job.inputs, steps=job.steps, state=job.state, files=files)


def free_name(name: str, taken: Container[str]) -> str:
    """NAME-2, NAME-3 … where NAME is taken; a long one is cut, since the queue could not be read with a longer name."""
    stem, number = re.sub(r"-\d+$", "", name) if name in taken else name, 2
    while name in taken:
        end = f"-{number}"
        name, number = stem[: LONGEST_NAME - len(end)] + end, number + 1
    return name


def _rename(job: JobSpec, taken: Container[str], renamed: dict[str, str]) -> JobSpec:
    """A free name; a P2 follows a P1 that was renamed in the same call."""
    renamed[job.name] = name = free_name(job.name, taken)
    return job.model_copy(update={"name": name, "after": renamed.get(job.after or "", job.after)})


def _joined(errors: Sequence[SpecError]) -> SpecError:
    if len(errors) == 1:
        return errors[0]
    joined = SpecError(errors[0].place, [fault for error in errors for fault in error.faults])
    joined.args = ("\n".join(str(error) for error in errors),)
    return joined


def _as_json(entries: Sequence[JobFile], *, is_queued: bool) -> dict[str, Any]:
    return {
        "format": 1,
        "queued" if is_queued else "checked": [
            {
                "name": entry.job.name,
                "file": str(entry.file),
                "phase": entry.job.phase,
                "steps": entry.steps,
                "segments": _segments(entry.job, entry.steps),
                "after": entry.job.after,
                "fingerprint": entry.fingerprint,
                "inputs": [item.model_dump() for item in entry.resolved.inputs],
                "changed": entry.changed,
                "notes": entry.notes,
            }
            for entry in entries
        ],
    }


def _segments(spec: JobSpec, steps: int | None) -> int:
    return count_segments(steps, spec.checkpoint.every_steps) if steps else 0


def _as_text(entries: Sequence[JobFile], *, is_queued: bool) -> list[str]:
    lines = []
    for entry in entries:
        job = entry.job
        lines.append(f"{'queued' if is_queued else 'good'} {job.name}: {_what(job, entry.steps)}")
        lines += [f"  set       {entry.changed}"] if entry.changed else []
        lines += [
            f"  {item.role:<9} {item.name}  {figures.size(item.size)}  {item.sha256[:12]}"
            for item in entry.resolved.inputs
        ]
        if job.phase != "command" and job.after:
            lines.append(f"  starts after {job.after}, on its {_rows(job)}")
        elif job.after:
            lines.append(f"  starts after {job.after}")
        lines += [f"  note: {note}" for note in entry.notes]
    return lines


def _what(spec: JobSpec, steps: int | None) -> str:
    parts = [spec.phase if spec.phase == "command" else spec.phase.upper()]
    if spec.model is not None:
        parts.append(f"of {spec.model.base}")
    if steps is not None:
        parts.append(f"to step {steps:,} in {counted(_segments(spec, steps), 'segment')}")
    elif spec.train is not None:
        parts.append(f"over {spec.train.epochs:g} epochs; the steps follow from the text")
    return " ".join(parts)


def _rows(spec: JobSpec) -> str:
    return f"rows at step {spec.rows}" if isinstance(spec.rows, int) else f"{spec.rows} rows"
