"""A job file that has been read and found good: what of it the queue takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.jobfile.inputs import keep_input
from runner.jobfile.read import Resolved
from wake2vec.contract.order import InputFile, fingerprint
from wake2vec.contract.spec import JobSpec


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """A job file that may go into the queue."""

    file: Path
    resolved: Resolved
    notes: list[str]
    changed: str = ""  # what the command line says in place of the file

    @property
    def job(self) -> JobSpec:
        return self.resolved.job

    @property
    def row(self) -> tuple[JobSpec, list[InputFile], str]:
        """As the queue wants it: what is to be done, the texts, and the fingerprint of both."""
        return self.job, self.resolved.inputs, self.fingerprint

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.job, self.resolved.inputs)

    def keep_texts(self, folder: Path) -> None:
        for sha256, path in self.resolved.files.items():
            keep_input(path, sha256, folder)

    @property
    def steps(self) -> int | None:
        """None while they follow from the text."""
        return self.job.train.steps if self.job.train else self.job.steps
