"""Every error of the training core that a person can act on.

Wake2vecError                 exit code 1
├── SpecError                 a job file or an order is wrong; carries every fault at once
├── InputError                a text, lexicon, rows or adapter file cannot be used
├── ModelError                a base model or tokenizer cannot be used
│   └── ModelChanged      24  it is not the one that the job began with
├── CheckpointCorrupt     12  a checkpoint does not verify, or is not of this job
├── StackChanged          25  a checkpoint that verifies computes something else here
├── NoGpu                 13  the card is missing, too old for this build, or cannot do what was asked
├── RankLost                  a process of a job on several cards is gone, silent or has drifted from the others
├── NotAsExpected         a value of the job is not the one that its file expects
├── NothingTrains             no step had a gradient, or none moved anything
├── GpuBusy               14  another trainer holds the GPU lock
├── OutOfMemory           15  no plan is left that fits
└── Diverged              16  the loss is not finite, or left the range that the job allows

A message says the cause, the place and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def first_line(error: BaseException) -> str:
    """What a library's error says first; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Wake2vecError(Exception):
    """Base of every error that is told to a person without a traceback."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong in a job file: where, what stands there, what is allowed."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}" if self.key else self.problem


class SpecError(Wake2vecError):
    """A job file is wrong."""

    def __init__(self, place: str, faults: Sequence[Fault]) -> None:
        self.place = place
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{place}: {fault}" for fault in self.faults))


class InputError(Wake2vecError):
    """A file that training needs cannot be used."""

    def __init__(self, place: object, problem: str, remedy: str = "") -> None:
        self.place = str(place)
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{place}: {problem}" + (f"; {remedy}" if remedy else ""))


class ModelError(InputError):
    """A base model or tokenizer cannot be used."""


class ModelChanged(ModelError):
    """The published model is not the one that the job began with."""

    exit_code = 24


class NotAsExpected(Wake2vecError):
    """A golden value was missed, and the job file wants a person to look."""

    remedy = "compare the runs with `replay`; `release` goes on all the same"


class NothingTrains(Wake2vecError):
    """Every step so far had a gradient of exactly 0, or left everything where it was."""

    remedy = "look at the word list, the text, train.lr and the schedule; then enqueue it with --again"


class CheckpointCorrupt(Wake2vecError):
    """A checkpoint does not verify."""

    exit_code = 12

    def __init__(self, place: object, problem: str) -> None:
        self.place = str(place)
        self.problem = problem
        super().__init__(f"{place}: {problem}")


class StackChanged(Wake2vecError):
    """A checkpoint that verifies computes something else with the software or the card of here."""

    exit_code = 25

    def __init__(self, place: object, problem: str, remedy: str) -> None:
        self.place, self.problem, self.remedy = str(place), problem, remedy
        super().__init__(f"{place}: {problem}; {remedy}")


class NoGpu(Wake2vecError):
    """The GPU is missing or cannot do what was asked."""

    exit_code = 13


class RankLost(Wake2vecError):
    """A rank of a job on several cards ended, answers no more, or holds other weights than the others."""


class GpuBusy(Wake2vecError):
    """Another trainer holds the GPU."""

    exit_code = 14


class OutOfMemory(Wake2vecError):
    """No plan is left that fits the card."""

    exit_code = 15


class Diverged(Wake2vecError):
    """The loss is not finite, or left the range that the job allows."""

    exit_code = 16
