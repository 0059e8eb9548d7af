"""Run one attempt: `python -m wake2vec RUN_DIR`. Reads spec.json, trains, and always leaves result.json.

With `--wait` in place of the folder it imports everything and reads the folder from its standard input, as a line.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from wake2vec.contract.errors import (
    Diverged,
    Fault,
    GpuBusy,
    InputError,
    ModelChanged,
    NotAsExpected,
    NothingTrains,
    OutOfMemory,
    RankLost,
    SpecError,
    StackChanged,
    Wake2vecError,
)
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.lock import hold_lock
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import WAIT, Outcome, Result, RunDir
from wake2vec.contract.spec import CommandSpec
from wake2vec.model.hub import unreachable
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.stopping import Stop

LOCK_PATIENCE_SECONDS = 3.0  # an observer's shared probe may hold the lock for an instant
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m wake2vec RUN_DIR", file=sys.stderr)
        return 2
    run = waited() if arguments == [WAIT] else RunDir(root=Path(arguments[0]).absolute())
    if run is None:
        return 0
    try:
        order = read_order(run)
        with ExitStack() as stack:
            for lock in (order.gpu_lock, *order.more_locks):
                take_gpu(stack, Path(lock), order)
            run.result.unlink(missing_ok=True)
            result = attempt(run, order)
            write_json(run.result, asdict(result))
    except Wake2vecError as error:  # before the lock was ours: the run directory is not ours to write in
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if result.outcome in ("completed", "yielded") else 1


def waited() -> RunDir | None:
    use_growing_segments(os.environ)
    from wake2vec.train.waiting import wait_for_order

    return wait_for_order(sys.stdin.buffer)


def use_growing_segments(environment: MutableMapping[str, str]) -> None:
    """Have PyTorch's allocator grow its segments, unless the user chose otherwise: budgets are measured so.

    With segments of fixed size a nearly full card fails for want of one whole piece. PyTorch reads this at its import.
    """
    if "PYTORCH_ALLOC_CONF" not in environment:  # its newer name
        environment.setdefault(ALLOCATOR, "expandable_segments:True")


def read_order(run: RunDir) -> Order:
    table = read_json(run.order)
    try:
        return Order.model_validate(table)
    except ValidationError as error:
        faults = [Fault(key=".".join(map(str, one["loc"])), problem=one["msg"]) for one in error.errors()]
        said = Fault(
            key="", problem="was it written by another version? start the runner again, and it is written anew"
        )
        raise SpecError(str(run.order), [*faults[:5], said]) from error


def take_gpu(stack: ExitStack, lock: Path, order: Order) -> None:
    """Hold a GPU's lock before torch is even imported. Alive means: the lock is held."""
    content = {"pid": os.getpid(), "attempt": order.attempt, "job": order.job.name}
    give_up = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            stack.enter_context(hold_lock(lock, content))
            return
        except GpuBusy:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def attempt(run: RunDir, order: Order) -> Result:
    """Train, and turn whatever stops it into a result that says what, where and what to do."""
    stop = Stop(order.stop_by)
    stop.listen()
    pulse = HeartbeatWriter(run, order.attempt)
    pulse.part("imports")
    pulse.write()
    failpoint("trainer.start")
    try:
        if isinstance(job := order.job, CommandSpec):
            from wake2vec.train.command import CommandTrainer

            return CommandTrainer(run=run, order=order, job=job, stop=stop, pulse=pulse).train()
        use_growing_segments(os.environ)
        from wake2vec.train.waiting import import_all

        import_all(job.phase)
        from wake2vec.train.attempt import train

        return train(run, order, stop, pulse)
    except Exception as error:
        traceback.print_exc()
        return failure(error, order, pulse)


def failure(error: Exception, order: Order, pulse: HeartbeatWriter) -> Result:
    loading = pulse.now.state in ("loading", "fitting")
    where, remedy = ("setup" if loading else "training"), getattr(error, "remedy", "")
    outcome: Outcome = "failed"
    said = str(error) if isinstance(error, Wake2vecError) else f"{type(error).__name__}: {error}"
    if loading and (trouble := unreachable(error)):
        where, said, remedy = "network", f"{trouble}: {said}", "it is tried again by itself; look at the network"
    elif os.strerror(errno.ENOSPC) in said:  # libraries wrap it in errors of their own
        where = "full"
    elif isinstance(error, OSError) and error.errno in (errno.EIO, errno.ENOTCONN, errno.ESTALE):
        where = "disk"
    elif (full := out_of_memory(error)) is not None:
        where, outcome, said = "capacity", "oom", full
        remedy = "a smaller seq_len, or allow_shorter_context = true"
    elif isinstance(error, RankLost):
        where, outcome = "card", "lost"
    elif isinstance(error, ModelChanged | StackChanged | NotAsExpected):
        where = "identity"
    elif isinstance(error, NothingTrains):
        where = "nothing"
    elif isinstance(error, InputError) and any(item.sha256 in error.place for item in order.inputs):
        where = "inputs"
    elif isinstance(error, Diverged):
        outcome, remedy = "diverged", "a lower train.lr"
    elif isinstance(error, Wake2vecError) and not remedy:
        remedy = "mend what the message names, then retry"
    return pulse.result(outcome, where, as_named(said.removesuffix(f"; {remedy}"), order), remedy)


def out_of_memory(error: Exception) -> str | None:
    """What ran out of memory; None for any other error, and for a command's trainer, which has no torch to ask."""
    if isinstance(error, OutOfMemory):
        return str(error)
    if "torch" not in sys.modules:
        return None
    from wake2vec.model.device import brief, is_out_of_memory

    return brief(error) if is_out_of_memory(error) else None


def as_named(said: str, order: Order) -> str:
    """With the names that a person gave to the inputs, which lie here under their hashes."""
    for item in order.inputs:
        said = said.replace(str(Path(order.inputs_folder) / item.sha256), item.name)
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
