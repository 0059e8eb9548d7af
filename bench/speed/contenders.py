"""What `bench` compares: ours, the layout of the original scripts, a masked full matrix, and PEFT with HF Trainer."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from bench.material.random_models import fill_matrices
from bench.speed.measure import Contender, Row, free, peaks, reset_peak, synchronise
from wake2vec.contract.models.model_shapes import ModelShape
from wake2vec.contract.plan import Plan
from wake2vec.model.dropout import StepKey, key_dropouts
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import InstalledRows, RowMode, install_rows
from wake2vec.model.placement import apply_plan
from wake2vec.structure.auxiliary import Auxiliary
from wake2vec.train.optimizers import clip_factor, gradient_norm, make_optimizer

LOSS_SCALE = 2.0**14
TRAINER_STEPS = 3  # the last is timed


def ours(
    model: Any, shape: ModelShape, plan: Plan, *, mode: RowMode, new: int, tokens_per_step: int, dtype: torch.dtype
) -> Contender:
    """P1: split rows, blocked loss, row-chunked Adafactor."""
    device = next(model.model.layers.parameters()).device
    fill_matrices(model, shape.matrix_rows, shape.width, dtype, device, tied=shape.tied)
    rows = torch.empty(new, shape.width, device=device).normal_(std=0.02)
    installed = install_rows(model, first_new_id=shape.tokenizer_length, mode=mode, input_rows=rows)
    del rows
    apply_plan(model, installed, plan, device)
    trainable = installed.trainable()
    optimizer = make_optimizer("adafactor", trainable, weight_decay=0.0)
    decoder = model.get_decoder()

    def micro(ids: Tensor) -> None:
        hidden = decoder(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        scale = LOSS_SCALE / tokens_per_step
        blocked_cross_entropy(hidden.flatten(0, 1), installed.head, ids[:, 1:].flatten(), scale=scale).scaled.backward()  # type: ignore[no-untyped-call]

    def update() -> None:
        factor = clip_factor(float(gradient_norm(trainable)) / LOSS_SCALE, 1.0) / LOSS_SCALE
        optimizer.step(1e-4, gradient_factor=factor)
        optimizer.zero_grad()

    return Contender(micro=micro, update=update)


def ours_lora(
    model: Any,
    shape: ModelShape,
    plan: Plan,
    *,
    new: int,
    tokens_per_step: int,
    dtype: torch.dtype,
    dropout: float,
    structure: Callable[[InstalledRows], Auxiliary] | None = None,
) -> tuple[Any, Contender]:
    """P2: LoRA on six projections over frozen rows; with `structure` P3, where rows and adapter train under it.

    Returns the PEFT model too, to unload it afterwards.
    """
    device = next(model.model.layers.parameters()).device
    fill_matrices(model, shape.matrix_rows, shape.width, dtype, device, tied=shape.tied)
    rows = torch.empty(new, shape.width, device=device).normal_(std=0.02)
    mode: RowMode = "shared" if shape.tied else "separate"
    installed = install_rows(model, first_new_id=shape.tokenizer_length, mode=mode, input_rows=rows)
    if structure is None:
        installed.freeze(dtype)
    del rows
    adapted = lora(model, dropout)
    if structure is not None:  # PEFT holds still all that is not its own
        for weight in installed.trainable().values():
            weight.requires_grad_()
    context = StepKey()
    key_dropouts(adapted, context, seed=1)
    apply_plan(adapted, installed, plan, device)
    trainable = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    optimizer = make_optimizer("adamw", trainable, weight_decay=0.0)
    auxiliary = None if structure is None else structure(installed)
    decoder = model.get_decoder()

    def micro(ids: Tensor) -> None:
        context.set(step=0, sample_ids=torch.arange(ids.shape[0], device=device))
        hidden = decoder(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        scale = LOSS_SCALE / tokens_per_step
        blocked_cross_entropy(hidden.flatten(0, 1), installed.head, ids[:, 1:].flatten(), scale=scale).scaled.backward()  # type: ignore[no-untyped-call]

    def update() -> None:
        if auxiliary is not None:
            auxiliary.add_gradients(1, LOSS_SCALE)
        factor = clip_factor(float(gradient_norm(trainable)) / LOSS_SCALE, 1.0) / LOSS_SCALE
        optimizer.step(1e-4, gradient_factor=factor)
        optimizer.zero_grad()

    return adapted, Contender(micro=micro, update=update)


def lora(model: Any, dropout: float) -> Any:
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    wanted = [
        name for name in ("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj")
        if name in names
    ]  # fmt: skip
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=dropout, target_modules=wanted))


class Overlay(nn.Module):
    """The input side of the original Qwen script: a frozen full matrix with an fp32 table over its last rows."""

    def __init__(self, weight: Tensor, start: int) -> None:
        super().__init__()
        self.weight = weight
        self.start = start
        self.table = nn.Embedding(weight.shape[0] - start, weight.shape[1], device=weight.device)

    def forward(self, ids: Tensor) -> Tensor:
        base = nn.functional.embedding(ids, self.weight)
        is_new = ids >= self.start
        over = self.table((ids - self.start).clamp(min=0)).to(base.dtype)
        return torch.where(is_new.unsqueeze(-1), over, base)


def overlay(model: Any, shape: ModelShape, *, new: int, dtype: torch.dtype, accumulation: int) -> Contender:
    """The original layout: overlay on the input, the same full matrix as a frozen head, the library's loss."""
    device = next(model.model.layers.parameters()).device
    fill_matrices(model, shape.tokenizer_length + new, shape.width, dtype, device, tied=True)
    module = Overlay(model.get_input_embeddings().weight, shape.tokenizer_length)
    model.set_input_embeddings(module)
    return _library_loop(model, [module.table.weight], dtype, accumulation)


def masked_matrix(model: Any, shape: ModelShape, *, new: int, dtype: torch.dtype, accumulation: int) -> Contender:
    """The whole tied matrix trains in 16 bits; a hook zeroes the gradient of the base rows."""
    device = next(model.model.layers.parameters()).device
    fill_matrices(model, shape.tokenizer_length + new, shape.width, dtype, device, tied=True)
    weight = model.get_input_embeddings().weight.requires_grad_()
    weight.register_hook(lambda gradient: masked(gradient, shape.tokenizer_length))
    return _library_loop(model, [weight], dtype, accumulation)


def by_hand(
    model: Any, shape: ModelShape, *, new: int, dtype: torch.dtype, accumulation: int, dropout: float, paged: bool
) -> tuple[Any, Contender]:
    """P3 as it was done by hand: LoRA and a whole matrix under a mask, tied by hand, with 8-bit Adam."""
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    device = next(model.model.layers.parameters()).device
    fill_matrices(model, shape.tokenizer_length + new, shape.width, dtype, device, tied=True)
    adapted = lora(model, dropout)
    model.enable_input_require_grads()
    weight = model.get_input_embeddings().weight.requires_grad_()  # PEFT holds it still
    weight.register_hook(lambda gradient: masked(gradient, shape.tokenizer_length))
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = (PagedAdamW8bit if paged else AdamW8bit)(parameters, lr=1e-4)
    return adapted, _library_loop(adapted, parameters, dtype, accumulation, optimizer)


def masked(gradient: Tensor, first: int) -> Tensor:
    gradient[:first] = 0
    return gradient


def _library_loop(
    model: Any, parameters: list[Any], dtype: torch.dtype, accumulation: int, optimizer: Any = None
) -> Contender:
    """transformers' model, loss, checkpointing and Adafactor, as the original scripts ran them."""
    from transformers.optimization import Adafactor

    checkpointing(model, on=True)
    optimizer = optimizer or Adafactor(
        parameters, lr=1e-4, scale_parameter=False, relative_step=False, warmup_init=False
    )

    def micro(ids: Tensor) -> None:
        with torch.autocast(ids.device.type, dtype):
            loss = model(input_ids=ids[:, :-1], labels=ids[:, :-1], use_cache=False).loss
        (loss * LOSS_SCALE / accumulation).backward()

    def update() -> None:
        for parameter in parameters:
            assert parameter.grad is not None, "no gradient"
            parameter.grad.div_(LOSS_SCALE)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Contender(micro=micro, update=update)


def checkpointing(model: Any, *, on: bool) -> None:
    """Switch the library's recomputation, whatever this version calls it."""
    verb = "enable" if on else "disable"
    switch = getattr(model, f"activation_checkpointing_{verb}", None) or getattr(
        model, f"gradient_checkpointing_{verb}"
    )
    switch()


def with_trainer(
    row: Row, model: Any, ids: Iterator[Tensor], device: torch.device, *, dtype: torch.dtype, optimizer: str
) -> tuple[Row, str]:
    """The row of a model that HF Trainer trains: three steps, the last of them timed."""
    import transformers
    from transformers import Trainer

    accumulation = row.tokens_per_step // (row.micro_batch * row.seq_len)
    samples = [
        {"input_ids": block[:-1].cpu(), "labels": block[:-1].cpu()}
        for _ in range(TRAINER_STEPS * accumulation)
        for block in next(ids)
    ]
    transformers.logging.set_verbosity_error()
    clock = _clock(device)
    error, figures = "", {}
    with tempfile.TemporaryDirectory() as folder:
        settings = _trainer_settings(folder, row.micro_batch, accumulation, device, dtype, optimizer)
        try:
            Trainer(model=model, args=settings, train_dataset=samples, callbacks=[clock]).train()
            seconds = clock.times[-1]
            figures = {"s_per_step": seconds, "tokens_per_s": row.tokens_per_step / seconds, **peaks(device)}
        except torch.OutOfMemoryError as exc:
            figures, error = {"oom": True}, str(exc).splitlines()[0]
    free(device)
    return Row(**{**asdict(row), **figures}), error


def _clock(device: torch.device) -> Any:
    """A callback that times each step, and counts the peak of memory from the third on."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, *_args: Any, **_more: Any) -> None:
            if len(self.times) == TRAINER_STEPS - 1:
                reset_peak(device)
            synchronise(device)
            self.times.append(-time.perf_counter())

        def on_step_end(self, *_args: Any, **_more: Any) -> None:
            synchronise(device)
            self.times[-1] += time.perf_counter()

    return Clock()


def _trainer_settings(
    folder: str, micro_batch: int, accumulation: int, device: torch.device, dtype: torch.dtype, optimizer: str
) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        max_steps=TRAINER_STEPS,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        fp16=dtype == torch.float16 and device.type == "cuda",
        bf16=dtype == torch.bfloat16 and device.type == "cuda",
        use_cpu=device.type == "cpu",
        optim=optimizer,
        learning_rate=1e-4,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def trainable_tokens(model: Any, shape: ModelShape, *, new: int, dtype: torch.dtype) -> Any:
    """PEFT's own way for new tokens, on the input and on an untied head."""
    from peft import TrainableTokensConfig, get_peft_model

    device = next(model.model.layers.parameters()).device
    fill_matrices(model, shape.tokenizer_length + new, shape.width, dtype, device, tied=False)
    indices = list(range(shape.tokenizer_length, shape.tokenizer_length + new))
    return get_peft_model(
        model, TrainableTokensConfig(token_indices=indices, target_modules=["embed_tokens", "lm_head"])
    )
