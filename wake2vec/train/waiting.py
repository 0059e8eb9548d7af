"""Import what every attempt needs, in time: before its parts are counted, or before there is an order at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from wake2vec.contract.rundir import RunDir

# Seconds each on a slow disk, and each met before the first step. Not bitsandbytes: it asks the card at its import.
MODULES = (
    "wake2vec.train.attempt",
    "datasets",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "accelerate",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
)
OF_ADAPTERS = ("peft",)
NO_COMPILER = "TORCHDYNAMO_DISABLE"  # read whenever something is to be compiled


def import_all(phase: str) -> None:
    with nothing_compiled(os.environ):
        for name in (*MODULES, *(OF_ADAPTERS if phase != "p1" else ())):
            import_module(name)


@contextmanager
def nothing_compiled(environment: MutableMapping[str, str]) -> Iterator[None]:
    """PEFT imports bitsandbytes, which asks torch.compile for functions of devices without kernels of its own: that
    alone imports all of inductor, a fifth of the whole start. A person's own command finds nothing of this."""
    before = environment.get(NO_COMPILER)
    environment.setdefault(NO_COMPILER, "1")
    try:
        yield
    finally:
        if before is None:
            del environment[NO_COMPILER]


def wait_for_order(orders: BinaryIO) -> RunDir | None:
    """The run directory that a line names, whose log is ours from then on; None when the runner is gone."""
    import_all("p2")
    line = orders.readline()
    if not line.endswith(b"\n"):
        return None
    run = RunDir(root=Path(json.loads(line)))
    for stream, path, mode in ((0, os.devnull, os.O_RDONLY), (1, run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        sys.stdout.flush()
        handle = os.open(path, mode, 0o644)
        os.dup2(handle, stream)
        os.close(handle)
    os.dup2(1, 2)
    return run
