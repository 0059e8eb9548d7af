"""Time steps and memory of one contender after another, on one device, and write the table."""

from __future__ import annotations

import gc
import importlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

GIB = 1 << 30
MEASURED_SECONDS = 1.5  # of micro-batches, at least two
# What the floor is reckoned with: large half-precision products and device copies of an H100, as its users measure them
FLOOR_TFLOPS, FLOOR_GBS = 790.0, 3000.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell of a table: a contender at one size."""

    contender: str
    layers: str
    micro_batch: int
    seq_len: int
    tokens_per_step: int
    details: str = ""
    tokens_per_s: float | None = None
    s_per_step: float | None = None
    peak_allocated_gib: float | None = None
    peak_reserved_gib: float | None = None
    oom: bool = False
    floor_fraction: float | None = None
    predicted_gib: float | None = None


@dataclass(kw_only=True)
class Contender:
    """Something that trains: one micro-batch at a time, then an update."""

    micro: Callable[[torch.Tensor], None]  # ids [b, s + 1]
    update: Callable[[], None]


@dataclass(kw_only=True)
class Table:
    """All rows of one script, with what they were measured on."""

    question: str
    model: str
    cap_gib: float | None
    path: Path
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take a row, print it and save them all: a run that is cut off keeps what it measured."""
        self.rows.append(row)
        print(format_row(row), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        table = {**setting(), "question": self.question, "model": self.model, "cap_gib": self.cap_gib}
        self.path.write_text(
            json.dumps({**table, **self.notes, "rows": [asdict(row) for row in self.rows]}, indent=1) + "\n"
        )


def setting() -> dict[str, Any]:
    """Hardware, versions and date."""
    names = ("torch", "transformers", "bitsandbytes", "peft", "accelerate")
    on_card = torch.cuda.is_available()
    return {
        "hardware": torch.cuda.get_device_name() if on_card else f"{platform.machine()} CPU",
        "versions": {name: str(importlib.import_module(name).__version__) for name in names}
        | {"python": platform.python_version()},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def cap_memory(device: torch.device, gib: float | None) -> None:
    """Let the process allocate no more than this of the card."""
    if gib is not None and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(gib * GIB / torch.cuda.get_device_properties(device).total_memory)


def blocks(micro_batch: int, seq_len: int, vocabulary: int, device: torch.device) -> Iterator[torch.Tensor]:
    """An endless stream of random blocks, the same for every contender. [b, s + 1]"""
    generator = torch.Generator().manual_seed(5)
    while True:
        yield torch.randint(0, vocabulary, (micro_batch, seq_len + 1), generator=generator).to(device)


def measure(
    row: Row, make: Callable[[], Contender], stream: Iterable[torch.Tensor], device: torch.device
) -> tuple[Row, str]:
    """The row with its figures, or with oom set; and the error's text."""
    error = ""
    try:
        figures = _run(row, make(), iter(stream), device)
    except torch.OutOfMemoryError as exc:
        figures, error = {"oom": True}, str(exc).splitlines()[0]
    # out of the except block: its traceback held the tensors
    free(device)
    return Row(**{**asdict(row), **figures}), error


def _run(row: Row, contender: Contender, stream: Iterator[torch.Tensor], device: torch.device) -> dict[str, Any]:
    accumulation = row.tokens_per_step // (row.micro_batch * row.seq_len)
    seconds = 0.0
    for _ in range(2):
        seconds = _timed(lambda: contender.micro(next(stream)), device)
    contender.update()
    contender.micro(next(stream))  # the first after an update
    reset_peak(device)
    count = max(2, min(accumulation, int(MEASURED_SECONDS / max(seconds, 1e-9))))

    def several() -> None:
        for _ in range(count):
            contender.micro(next(stream))

    micro = _timed(several, device) / count
    update = _timed(contender.update, device)
    step = accumulation * micro + update
    return {"s_per_step": step, "tokens_per_s": row.tokens_per_step / step, **peaks(device)}


def _timed(action: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, float]:
    if device.type != "cuda":
        return {}
    return {
        "peak_allocated_gib": torch.cuda.max_memory_allocated(device) / GIB,
        "peak_reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
    }


def free(device: torch.device) -> None:
    """Give back what the last contender held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def format_row(row: Row) -> str:
    size = f"{row.micro_batch}x{row.seq_len}"
    name = f"{row.contender:<22} {row.layers:<11} {row.details:<26} {size:>8}"
    if row.oom:
        return f"{name}  out of memory"
    parts = [f"{row.tokens_per_s:9.1f} tok/s {row.s_per_step:8.3f} s/step"]
    if row.peak_allocated_gib is not None:
        parts.append(f"{row.peak_allocated_gib:6.2f} GiB ({row.peak_reserved_gib:.2f} reserved)")
    if row.predicted_gib is not None:
        parts.append(f"plan {row.predicted_gib:.2f}")
    if row.floor_fraction is not None:
        parts.append(f"{row.floor_fraction:.0%} of floor")
    return f"{name} {'  '.join(parts)}"
