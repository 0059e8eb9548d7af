"""In what numbers a model is held and computed on a given device, decided by hardware and proved by a real product."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from wake2vec.contract.errors import NoGpu, first_line

Load = Literal["nf4", "int8", "fp16", "bf16", "fp32"]
Compute = Literal["fp16", "bf16", "fp32"]
DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
QUANTISED = ("nf4", "int8")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How the frozen body is held, and in what its arithmetic is done."""

    load: Load
    compute: Compute

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.compute]


def choose_precision(load: str, compute: str, *, device: str, capability: tuple[int, int] | None) -> Precision:
    """Settle `auto` and refuse what the hardware only emulates. `capability` is that of the card, None on a CPU.

    Never asks torch.cuda.is_bf16_supported(): it says yes on a T4, which then computes at a tenth of its fp16 speed.
    """
    if load == "auto":
        load = "fp32" if capability is None else "nf4"
    native = "fp32" if capability is None else "bf16" if capability >= (8, 0) else "fp16"
    if compute == "auto":
        compute = native if load in QUANTISED else load
    _refuse(load, compute, device, capability)
    return Precision(load=load, compute=compute)  # type: ignore[arg-type]


def _refuse(load: str, compute: str, device: str, capability: tuple[int, int] | None) -> None:
    if capability is None and "fp16" in (load, compute):
        raise NoGpu(f"{device}: fp16 on a CPU is a thousand times slower than fp32; use load = fp32 or compute = fp32")
    if capability is None and load == "int8":
        raise NoGpu(f"{device}: int8 weights cannot be trained through on a CPU; use load = nf4 or fp32")
    if capability is not None and capability < (8, 0) and "bf16" in (load, compute):
        major, minor = capability
        raise NoGpu(
            f"{device}: bf16 needs compute capability 8.0, this card has {major}.{minor} and would emulate it "
            "at a tenth of its fp16 speed; use fp16 or auto"
        )
    if load not in QUANTISED and load != compute:
        raise NoGpu(f"{device}: weights held in {load} are computed in {load}, not {compute}; use compute = auto")


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """Compute capability of a card; None for the CPU. Raises NoGpu when there is no such card."""
    if device.type == "cpu":
        return None
    if not torch.cuda.is_available():
        raise NoGpu(f"{device}: no CUDA device is visible; start a GPU session, or train on the cpu")
    return torch.cuda.get_device_capability(device)


def preflight(device: torch.device, precision: Precision) -> None:
    """Multiply two small matrices in the chosen numbers. Raises NoGpu when this build has no kernels for the card."""
    try:
        left = torch.ones(64, 64, device=device, dtype=precision.dtype)
        found = float((left @ left).float().sum())
    except RuntimeError as exc:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        raise NoGpu(
            f"{name}: a {precision.compute} product failed ({first_line(exc)}); this PyTorch "
            f"({torch.__version__}) has no kernels for the card: choose another accelerator (a T4, not a P100)"
        ) from exc
    if found != 64.0**3:
        raise NoGpu(f"{device}: a {precision.compute} product gave {found} instead of {64.0**3}; the card is not sound")


def make_repeatable() -> None:
    """Have this thread repeat its bits: fixed summation orders, no half-precision partial sums, one backward thread.

    Call it in the thread that trains, before the first CUDA operation. The other half is in the written-out layers,
    whose kernels are chosen so.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # the default splits sums in fp16
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # The engine's own thread costs: a P2 step that took 0.48 s in one thread took 0.77 s (H100, 4x256), most of it in
    # handing Python's lock to and fro.
    torch.autograd.set_multithreading_enabled(False)
    # cuDNN's attention took 0.6 ms of CPU a call, as much as the rest of a layer; flash and mem-efficient stay
    torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def deterministic() -> Iterator[None]:
    """Only deterministic kernels inside; attention's backward pass has another choice, and takes it by default.

    Not for a whole process: it forbids operations (a cumulative sum, for one) that text generation needs.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
