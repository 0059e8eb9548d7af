"""In what numbers a model is held and computed on a given device, decided by hardware and proved by a real product.

And new rows in 16 bits: whatever is computed of them is fp32, and what comes of it is rounded here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import ModelError, NoGpu, first_line
from wake2vec.model.dropout import salt_of, sixteen_bits
from wake2vec.model.layers.kernels import mix

Load = Literal["nf4", "int8", "fp16", "bf16", "fp32"]
Compute = Literal["fp16", "bf16", "fp32"]
DTYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
QUANTISED = ("nf4", "int8")
CHUNK_BYTES = 16 << 20  # of one fp32 temporary; an update needs up to four of them at once


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


class HeldRows(nn.Parameter):
    """New rows in 16 bits, `[n, d]`; their gradient is fp32, which PyTorch would not have beside them."""

    key: str  # of the matrix, for its draws
    seed: int

    @classmethod
    def of(cls, rows: nn.Parameter, dtype: torch.dtype, *, name: str, seed: int) -> HeldRows:
        """Raises ModelError where the rows do not fit into the range of `dtype`."""
        held = cls(torch.empty_like(rows, dtype=dtype), requires_grad=rows.requires_grad)
        held.key, held.seed = name, seed
        for part in row_chunks(rows):
            values = rows.detach()[part]
            held.settle(part, values, step=0)
            off = torch.linalg.vector_norm(held.detach()[part].float() - values, dim=1)
            if not bool((off <= torch.linalg.vector_norm(values, dim=1) / 64).all()):  # nor is NaN
                limits = torch.finfo(dtype)
                problem = (
                    f"{limits.dtype} cannot hold {name}: it has numbers from {limits.tiny:.1g} to {limits.max:,.6g}"
                )
                raise ModelError("vocab.dtype", problem, 'leave it at "fp32"')
        return held

    @property
    def grad(self) -> Tensor | None:
        return self.__dict__.get("_grad32")

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        self.__dict__["_grad32"] = gradient

    def settle(self, part: slice, values: Tensor, *, step: int) -> None:
        """Hold these fp32 values, rounded by the draw of a step."""
        self.data[part] = rounded(values, self.dtype, first_row=part.start, salt=salt_of(self.seed, step, self.key))


def row_chunks(tensor: Tensor) -> Iterator[slice]:
    """Slices of the first dimension, each at most CHUNK_BYTES of fp32."""
    per_row = 4 * max(1, tensor[0].numel()) if tensor.shape[0] else 4
    rows = max(1, CHUNK_BYTES // per_row)
    for start in range(0, tensor.shape[0], rows):
        yield slice(start, min(start + rows, tensor.shape[0]))


def worked_in(parameter: Tensor) -> torch.dtype:
    """In what numbers gradient and optimizer state of a parameter are."""
    return torch.float32 if isinstance(parameter, HeldRows) else parameter.dtype


def rounded(values: Tensor, dtype: torch.dtype, *, first_row: int, salt: int) -> Tensor:
    """fp32 rows `[n, d]` in 16 bits: fp16 to the nearest, bf16 up or down by a draw whose mean is the value.

    To the nearest, bf16 would lose three steps of four (docs/questions.md). What is drawn for an entry follows from the
    salt and its place in the whole matrix, so neither slabs nor cards change it. What bf16 can hold stays as it is.
    """
    if dtype != torch.bfloat16:
        return values.to(dtype)
    rows = torch.arange(first_row, first_row + len(values), dtype=torch.int32, device=values.device)
    drawn = sixteen_bits(mix(rows), values.shape[1], salt).to(torch.int32).add_(1 << 15)  # [n, d], 0 to 65,535
    # a bf16 is the upper half of an fp32: the lower half is the chance, of 65,536, to go on to the next
    drawn.add_(values.view(torch.int32)).bitwise_and_(-(1 << 16))
    return torch.where(values.isfinite(), drawn.view(torch.float32), values).to(dtype)


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
