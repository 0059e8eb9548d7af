"""Which names of new jobs the store holds already, and what the job of that name there is. A missing answer is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.commands.store_room import asked
from runner.settings import Settings
from runner.store.base import Store
from runner.store.log import Log
from runner.store.open import open_store
from runner.store.records import Record
from runner.store.root import jobs
from wake2vec.contract.order import PLAN_AND_CADENCE
from wake2vec.contract.spec import JobSpec

MOST_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class StoredJobs:
    """What the root log of the store says: jobs by name; `problem` tells why it could not be read."""

    store: Store
    jobs: Mapping[str, Record]
    problem: str = ""

    @property
    def place(self) -> str:
        return self.store.properties.place

    def refusal(self, job: JobSpec, fingerprint: str, again: str) -> str:
        """Cause, place and both ways out; empty where the name is free, or the job there is this very one."""
        entry = self.jobs.get(job.name)
        if entry is None or entry.job.fingerprint == fingerprint:
            return ""
        body, problem = asked(lambda: self.store.read(entry.job.genesis_id))
        if body is None and not problem:
            return ""  # its folder was deleted by hand
        there = Record.from_bytes(body, job.name).genesis.job if body else {}
        changed = differences(there, job.model_dump(mode="json"))
        differs = "; ".join(changed[:MOST_SHOWN]) or "on other texts or another model"
        return (
            f"{job.name}: {self.place} holds another job of that name ({differs}). To train this one beside it: "
            f"--again, as {again}. To go on with that one: `wake2vec-runner start` brings it here, then "
            f"`extend {job.name} STEPS` gives it more steps, `set {job.name} KEY=VALUE` another cadence or priority"
        )


def stored_jobs(settings: Settings) -> StoredJobs:
    """Ask for a few seconds. Raises RunnerError for an address that can be no store."""
    store = open_store(settings.store_url, settings.home)

    def read() -> dict[str, Record]:
        first_id = store.root_id()
        if store.read(first_id) is None:  # nobody has been here yet
            return {}
        return jobs(Log.open(store, first_id, holder="").records)

    answer, problem = asked(read)
    return StoredJobs(store=store, jobs=answer or {}, problem=problem)


def differences(there: Mapping[str, Any], here: Mapping[str, Any], place: str = "") -> list[str]:
    """Each key that decides the result and whose value differs, with both values."""
    found = []
    for key in (key for key in here if key in there and f"{place}{key}" not in PLAN_AND_CADENCE):
        old, new = there[key], here[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{place}{key}.")
        elif old != new:
            found.append(f"{place}{key} is {json.dumps(old)} there, {json.dumps(new)} here")
    return found
