"""How far the gradients of new rows are from an fp64 masked full matrix, and what the machine sustains.

`python -m bench.correctness.exactness` on a GPU or a CPU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.material.random_models import fill_matrices, random_body
from bench.speed.measure import setting, synchronise
from bench.speed.p1 import parse
from wake2vec.contract.models.model_shapes import ModelShape
from wake2vec.model.layers.paths import use_layers
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import install_rows
from wake2vec.model.precision import Precision, make_repeatable
from wake2vec.train.optimizers import Adafactor

SHAPE = ModelShape(
    name="exactness", family="qwen2", layers=4, width=512, feed=1024, heads=8, groups=2, head_dim=64,
    matrix_rows=4096, tokenizer_length=4000, tied=False,
)  # fmt: skip
NEW, TOKENS = 1000, (4, 128)
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def body(dtype: torch.dtype, device: torch.device) -> Any:
    """The same random numbers, rounded to fp16 once, in every dtype."""
    model = random_body(SHAPE, Precision(load="fp32", compute="fp32"), device)
    fill_matrices(model, SHAPE.matrix_rows, SHAPE.width, torch.float32, device, tied=False)
    return model.half().to(dtype)


def rows(device: torch.device) -> Tensor:
    return (torch.randn(NEW, SHAPE.width, generator=torch.Generator().manual_seed(3)) * 0.02).half().float().to(device)


def ids(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, SHAPE.tokenizer_length + NEW, (TOKENS[0], TOKENS[1] + 1), generator=generator).to(device)


def oracle(device: torch.device) -> tuple[Tensor, Tensor]:
    """Gradients of the new rows, input and output side, from full matrices in fp64 with plain autograd."""
    model = body(torch.float64, device)
    base = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    joined = [torch.cat([side[: SHAPE.tokenizer_length], rows(device).double()]).requires_grad_() for side in base]
    tokens = ids(device)
    hidden = model.model(inputs_embeds=F.embedding(tokens[:, :-1], joined[0]), use_cache=False).last_hidden_state
    F.cross_entropy((hidden @ joined[1].T).flatten(0, 1), tokens[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
    grads = [side.grad[SHAPE.tokenizer_length :] for side in joined if side.grad is not None]
    return grads[0], grads[1]


def ours(
    dtype: torch.dtype, path: Literal["lean", "checkpoint", "offload", "autograd"], device: torch.device
) -> tuple[Tensor, Tensor, float]:
    """The same gradients from split rows, and how far base rows moved after three steps."""
    model = body(dtype, device)
    installed = install_rows(model, first_new_id=SHAPE.tokenizer_length, mode="separate", input_rows=rows(device))
    sides: Any = installed.embedding.base, installed.head.base
    before = [side.weight.clone() for side in sides]
    use_layers(model, path)
    optimizer = Adafactor(installed.trainable())
    scale, found = 2.0**14, None
    for _ in range(3):
        tokens = ids(device)
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state.flatten(0, 1)
        targets = tokens[:, 1:].flatten()
        blocked_cross_entropy(hidden, installed.head, targets, scale=scale / targets.numel()).scaled.backward()  # type: ignore[no-untyped-call]
        grads = [parameter.grad for parameter in installed.trainable().values()]
        found = found or [grad.double() / scale for grad in grads if grad is not None]
        optimizer.step(1e-3, gradient_factor=1 / scale)
        optimizer.zero_grad()
    after = [side.weight for side in sides]
    drift = max(float((one.double() - two.double()).abs().max()) for one, two in zip(before, after, strict=True))
    assert found is not None, "no step was made"
    return found[0], found[1], drift


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def ceilings(device: torch.device) -> dict[str, float]:
    """Large half-precision product, device copy, NF4 dequantisation and copy of 0.9 GB of rows to pinned memory."""
    import bitsandbytes as bnb

    side = torch.randn(8192, 8192, device=device, dtype=torch.float16)
    shape = torch.randn(4096, 5120, device=device, dtype=torch.float16), torch.randn(13824, 5120, device=device).half()
    codes, state = bnb.functional.quantize_4bit(shape[1], quant_type="nf4", compress_statistics=True)
    source = torch.empty(1 << 28, device=device)
    target = torch.empty_like(source)
    pinned = torch.empty(44_223 * 5120, pin_memory=True)
    on_card = torch.empty(44_223 * 5120, device=device)
    return {
        "product_8192_tflops": 2 * 8192**3 / _seconds(lambda: side @ side, device) / 1e12,
        "product_gate_tflops": 2 * 4096 * 5120 * 13824 / _seconds(lambda: shape[0] @ shape[1].t(), device) / 1e12,
        "copy_gbs": 2 * 4 * (1 << 28) / _seconds(lambda: target.copy_(source), device) / 1e9,
        "dequantise_gbs": 2.515
        * shape[1].numel()
        / _seconds(lambda: bnb.functional.dequantize_4bit(codes, state), device)
        / 1e9,
        "rows_to_host_seconds": _seconds(lambda: pinned.copy_(on_card, non_blocking=True), device),
    }


def _seconds(action: Callable[[], Any], device: torch.device) -> float:
    for _ in range(3):
        action()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(10):
        action()
    synchronise(device)
    return (time.perf_counter() - start) / 10


def main() -> None:
    options = parse(__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    make_repeatable()
    expected = oracle(device)
    table = []
    for name in ("fp64", "fp32", "fp16", "bf16") if device.type == "cuda" else ("fp64", "fp32"):
        for path in ("autograd", "lean", "checkpoint", "offload"):
            found_in, found_out, drift = ours(DTYPES[name], path, device)
            row = {"dtype": name, "layers": path, "input_rows": relative(found_in, expected[0])}
            again = ours(DTYPES[name], path, device)
            same = torch.equal(found_in, again[0]) and torch.equal(found_out, again[1])
            row |= {"output_rows": relative(found_out, expected[1]), "base_drift": drift, "repeats_bits": float(same)}
            table.append(row)
            print(
                "  ".join(f"{key} {value if isinstance(value, str) else f'{value:.2e}'}" for key, value in row.items())
            )
    result = {**setting(), "question": "gradient of new rows against an fp64 masked full matrix", "rows": table}
    if device.type == "cuda":
        result["ceilings"] = ceilings(device)
        print(result["ceilings"])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "exactness.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
