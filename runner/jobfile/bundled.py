"""The job files that come with the program, and what travels beside them."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from runner.errors import RunnerError

INSIDE = Path(str(files("runner"))) / "jobs"  # in a wheel
JOBS = INSIDE if INSIDE.is_dir() else INSIDE.parent.parent / "jobs"  # in a checkout
SCHEMA = "job.schema.json"  # what every job file names in its first line; written by `new`, not carried along
TEXTS = "texts"  # where a person's own go: only its README is ours
BESIDE = {"tiny": ("tiny",), "command": ("command", "tiny")}  # by the first part of a job's name; else the texts


def names() -> list[str]:
    """Every job file, but those that only `make demo` can fill, and studies of others."""
    found = (path.stem for path in JOBS.glob("*.toml"))
    return sorted(name for name in found if not name.startswith("demo_") and "study" not in name)


def job_file(name: str) -> Path:
    """Raises RunnerError for a name that there is not."""
    if name in names():
        return JOBS / f"{name}.toml"
    nearest = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    raise RunnerError(f"{name}: no such job file comes with wake2vec-runner; {meant}`new --list` shows all")


def companions(name: str) -> list[Path]:
    """What must lie beside a job file, by paths below the folder of jobs."""
    folders = BESIDE.get(name.split("_")[0], (TEXTS,))
    found = [path.relative_to(JOBS) for folder in folders for path in sorted((JOBS / folder).rglob("*.*"))]
    ours = [path for path in found if path.name == "README.md" or TEXTS not in path.parts]
    return [Path(SCHEMA), *(path for path in ours if path.suffix != ".pyc")]
