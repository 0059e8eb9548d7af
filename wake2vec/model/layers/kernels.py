"""Element-wise steps in one kernel each, and products with fp32 sums of factors in half precision.

Steps are compiled by PyTorch's jiterator on a CUDA card and are plain operations elsewhere.

The jiterator compiles CUDA C++ through NVRTC for whatever card is there, sm75 included, which Triton no longer serves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# "lowbias32" by Chris Wellons, github.com/skeeto/hash-prospector: a bijective 32-bit mix of low measured bias
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - (1 << 32)
HALF = (torch.float16, torch.bfloat16)

SWIGLU = """
template <typename T> T swiglu(T gate, T up) {
    float g = static_cast<float>(gate);
    return static_cast<T>(g / (1.0f + expf(-g)) * static_cast<float>(up));
}
"""
SWIGLU_BACKWARD = """
template <typename T> void swiglu_backward(T grad, T gate, T up, T& d_gate, T& d_up) {
    float d = static_cast<float>(grad), g = static_cast<float>(gate), u = static_cast<float>(up);
    float s = 1.0f / (1.0f + expf(-g));
    d_up = static_cast<T>(d * g * s);
    d_gate = static_cast<T>(d * u * s * (1.0f + g * (1.0f - s)));
}
"""
DRAW = """
template <typename T> T draw(T key, T counter, T salt) {
    unsigned int x = static_cast<unsigned int>(key) ^ static_cast<unsigned int>(salt);
    x ^= x >> 16; x *= 0x7feb352du; x ^= x >> 15; x *= 0x846ca68bu; x ^= x >> 16;
    x += static_cast<unsigned int>(counter);
    x ^= x >> 16; x *= 0x7feb352du; x ^= x >> 15; x *= 0x846ca68bu; x ^= x >> 16;
    return static_cast<T>(x);
}
"""


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up. [t, f]"""
    if gate.dtype in HALF and compiles(gate.device):
        return _kernel(SWIGLU, 1)(gate, up)
    return F.silu(gate).mul_(up)


def swiglu_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; `grad` may be overwritten. [t, f]"""
    if gate.dtype in HALF and compiles(gate.device):
        return _kernel(SWIGLU_BACKWARD, 2)(grad, gate, up)
    d_up = F.silu(gate).mul_(grad)
    return torch.ops.aten.silu_backward(grad.mul_(up), gate), d_up


def draws(keys: Tensor, counters: Tensor, salt: int) -> Tensor:
    """32 random bits for each key and counter, others for each salt. int32 [t], [c] -> [t, c]"""
    if keys.is_cuda and compiles(keys.device):
        return _kernel(DRAW, 1, "salt")(keys.unsqueeze(1), counters, salt=salt)
    return mix(mix(keys ^ salt).unsqueeze(1) + counters)


def mix(x: Tensor) -> Tensor:
    """Hash int32 to int32 (a new tensor); products wrap, shifts are made logical by a mask."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x *= FIRST
    x ^= (x >> 15) & 0x1FFFF
    x *= SECOND
    x ^= (x >> 16) & 0xFFFF
    return x


@functools.cache
def compiles(device: torch.device) -> bool:
    """Whether kernels can be compiled for this device; found out by compiling one."""
    if device.type != "cuda":
        return False
    probe, salt = torch.ones(2, device=device, dtype=torch.int32), -1234567890
    try:
        found = _kernel(DRAW, 1, "salt")(probe, probe, salt=salt)
    except RuntimeError:
        return False
    return bool(torch.equal(found, mix(mix(probe ^ salt) + probe)))


@functools.cache
def _kernel(code: str, outputs: int, *scalars: str) -> Callable[..., Any]:
    from torch.cuda import jiterator

    if outputs == 1:
        kernel: Callable[..., Any] = jiterator._create_jit_fn(code, **dict.fromkeys(scalars, 0))
    else:
        kernel = jiterator._create_multi_output_jit_fn(code, outputs)
    return kernel


def product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product with fp32 sums and an fp32 result, also of half-precision factors (fp64 stays fp64)."""
    if left.dtype not in HALF:
        return left @ right
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in the dtype of total where the device can."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif left.is_cuda and left.dtype in HALF and total.dtype == torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total.add_(product(left, right).to(total.dtype))
