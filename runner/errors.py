"""Every error of the runner that a person can act on, with its exit code.

RunnerError                    1  a request that cannot be carried out
├── UnknownJob                 1  no job of that name
├── JobExists                  1  the name is taken
├── IllegalTransition          1  the job's state does not allow that
├── NeedsHelp                  1  something a person must decide
├── TrackerBusy                1  another process tells the tracker of the job
├── TrackerFailed              1  its own library did not take what it was told
├── DaemonRunning             10  a living daemon has this home
├── QueueUnavailable          27  the queue that homes share cannot be reached
├── ClusterLost               28  the head of a Ray cluster does not answer any more
├── StoreUnavailable          11  the store cannot be reached or written
│   ├── StoreBusy             11  it may work in a moment; carries how long to wait
│   ├── StoreFull             11  no room left
│   ├── SignInNeeded          17  the store wants a person to sign in
│   └── StoreLost             21  the store is not what this home knows: gone, in the bin, older, another, or torn
├── NotStored                 12  the store does not hold what a record names
├── Damaged                   12  bytes that do not match their hash
├── HomeUnusable              18  the home cannot be read, written or locked
│   └── DatabaseCorrupt        18  the queue's database is not sound
├── LeaseHeld                 20  another runner is at work on the job
├── Fenced                    19  another runner has taken the job over
├── NeedsYou                  22  only jobs that need a person are left
└── Unsent                    23  what was trained is not in the store
From wake2vec.contract.errors come SpecError and InputError (1), CheckpointCorrupt (12), NoGpu (13), GpuBusy (14),
OutOfMemory (15) and Diverged (16).
0 is done, 2 usage, 3 a bug, 130 interrupted.

A message says the cause, the place and the remedy.
"""

from __future__ import annotations

from enum import StrEnum

BUG, INTERRUPTED = 3, 130


class RunnerError(Exception):
    """Base of every runner error that is told to a person without a traceback."""

    exit_code = 1

    def __init__(self, message: str = "", *, command: str = "") -> None:
        self.command = command  # what a person can type to mend it, where that is one thing
        super().__init__(message)


class UnknownJob(RunnerError):
    """There is no job of that name."""


class JobExists(RunnerError):
    """A job of that name is in the queue already."""


class IllegalTransition(RunnerError):
    """The job's state does not allow what was asked."""


class NeedsHelp(RunnerError):
    """A person must decide."""


class TrackerBusy(RunnerError):
    """Another process tells this tracker of the job, so that nothing is told twice."""


class TrackerFailed(RunnerError):
    """A tracker's own library raised something, as when its server is away; nothing of the ledger is lost by it."""


class DaemonRunning(RunnerError):
    """Another daemon works in this home."""

    exit_code = 10


class QueueUnavailable(RunnerError):
    """The database server of a shared queue does not answer; what is trained is kept here until it does."""

    exit_code = 27


class ClusterLost(RunnerError):
    """The cluster that trainers were started on cannot be asked any more; they end with their hosts."""

    exit_code = 28


class StoreUnavailable(RunnerError):
    """The store cannot be reached, read or written."""

    exit_code = 11


class StoreBusy(StoreUnavailable):
    """The store may answer in a moment: a lost connection, a rate limit, a failure on its side."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        self.retry_after_seconds = retry_after_seconds  # as the store asked for; None when it did not
        super().__init__(message)


class StoreFull(StoreUnavailable):
    """The store has no room left."""


class SignInNeeded(StoreUnavailable):
    """The store wants a person to sign in."""

    exit_code = 17


class Loss(StrEnum):
    """What became of a store, or of one job in it, that this home knew."""

    GONE = "gone"  # its root record, or the log of the job, is not there any more
    BIN = "in the bin"  # it can be had back there
    OLDER = "older"  # its log ends before what this home knows to be in it
    OTHER = "another"  # another store lies at this address
    TORN = "torn"  # its logs are there, but not every object that they name


class StoreLost(StoreUnavailable):
    """The store was read, and is not what this home knows. A fact: a network that fails raises StoreBusy instead."""

    exit_code = 21

    def __init__(self, problem: str, *, loss: Loss = Loss.GONE, remedy: str = "") -> None:
        self.problem = problem
        self.loss = loss
        self.remedy = remedy or (
            "if it can come back (a disk, a folder, the right --store or token), bring it back and all goes on by "
            "itself; `wake2vec-runner repair` puts there anew what this home holds"
        )
        said = problem if self.remedy in problem else f"{problem}; {self.remedy}"
        super().__init__(said, command="wake2vec-runner repair" if loss is not Loss.BIN else "")


class NotStored(RunnerError):
    """The store does not hold an object that should be there."""

    exit_code = 12


class Damaged(RunnerError):
    """Bytes do not match the hash they were recorded with."""

    exit_code = 12


class LeaseHeld(RunnerError):
    """Another runner is at work on the job, or was until a moment ago."""

    exit_code = 20

    def __init__(self, message: str, *, holder: str, seconds_left: float) -> None:
        self.holder = holder
        self.seconds_left = seconds_left  # until the lease counts as stale, if its holder stays silent
        super().__init__(message)


class HomeUnusable(RunnerError):
    """The home directory cannot be used."""

    exit_code = 18


class DatabaseCorrupt(HomeUnusable):
    """The queue's database is not sound; the daemon sets it aside and rebuilds it from the store."""

    def __init__(self, place: object, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"{place}: not a sound database ({problem}); `wake2vec-runner start` rebuilds it from the store"
        )


class Fenced(RunnerError):
    """Another runner has taken this job over; nothing more is uploaded from here."""

    exit_code = 19


class NeedsYou(RunnerError):
    """`start --until-empty` has only jobs left that a person must mend."""

    exit_code = 22


class Unsent(RunnerError):
    """The store did not take what was trained, as long as it was waited for."""

    exit_code = 23
