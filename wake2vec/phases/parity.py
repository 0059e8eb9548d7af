"""The published model as a job uses it: loaded for this device, frozen, and proven unchanged by what is built on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wake2vec.contract.errors import ModelError
from wake2vec.contract.models.families import longest, refusal
from wake2vec.model.bare import read_config
from wake2vec.model.device import this_device
from wake2vec.model.load import load_published
from wake2vec.model.loss import blocked_cross_entropy
from wake2vec.model.new_rows import published_head
from wake2vec.model.precision import Precision
from wake2vec.model.published_files import origin_of
from wake2vec.model.split_vocabulary import SplitHead
from wake2vec.phases.inputs import JobInputs

PARITY_TOKENS = 32
HEAD_OFF = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}  # of the logits' norm, for rounding
PARITY_AT_ONCE = 512  # tokens: this comes before memory is measured, so it asks for little


@dataclass(frozen=True, kw_only=True)
class PublishedOutputs:
    """What the model as published computes; nothing that is built on it may change a bit of this."""

    logits: Tensor  # [tokens, first_new_id], of base tokens on a stretch of the held-out text
    english: Tensor  # [windows, L], nats of each target of the English control, over the base vocabulary


def load(material: JobInputs) -> tuple[Any, torch.device, Precision]:
    """The model of the job on this machine's device, and in what numbers it is held and computed."""
    table = material.job.model
    check_config(material)
    device = this_device()
    stage = material.stage
    model, report = load_published(
        table,
        device,
        lambda done, whole: material.getting_on("loading the model", done / whole),
        holds=lambda name: stage is None or stage.holds(name),
    )
    checked = f"{report.check_seconds:.1f} s of them to see that every tensor lies in it as its file has it"
    print(
        *filter(None, [report.note, f"the model was loaded in {report.seconds:.1f} s, {checked}"]), sep="\n", flush=True
    )
    for side, matrix in zip(("input", "output"), matrices(model), strict=True):
        if matrix.shape[0] < material.id_map.first_new_id:
            problem = (
                f"its tokenizer has {material.id_map.first_new_id} tokens, its {side} matrix {matrix.shape[0]} rows"
            )
            raise ModelError(table.base, problem, "use the tokenizer that belongs to the model")
    if stage is not None:
        stage.install(model)
    return model, device, report.precision


def check_config(material: JobInputs) -> None:
    """What `enqueue` could not see, where the hub was out of its reach. Raises ModelError before minutes of loading."""
    table, data = material.job.model, material.job.data
    config = read_config(origin_of(table)).to_dict()
    if no := refusal(config, trust_remote_code=table.trust_remote_code):
        raise ModelError(table.base, no.problem, no.remedy)
    if (limit := longest(config)) is not None and data.seq_len > limit:
        raise ModelError("data.seq_len", f"{data.seq_len}, but the model has {limit} positions", "give at most that")


def freeze(model: Any) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def matrices(model: Any) -> tuple[Tensor, Tensor]:
    """The published input and output matrices, [V, d] each; the same tensor when the model ties them."""
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def parity_inputs(material: JobInputs) -> Tensor:
    """A fixed stretch of base tokens from the held-out text. [1, tokens]"""
    ids = material.windows.inputs.flatten()
    ids = ids[ids < material.id_map.first_new_id][:PARITY_TOKENS]
    return torch.from_numpy(ids.copy()).unsqueeze(0)


def as_published(model: Any, material: JobInputs) -> PublishedOutputs:
    """What is compared later, computed before anything is built on the model."""
    head = published_head(model, material.id_map.first_new_id)
    if material.stage is not None:
        material.stage.check(model, parity_inputs(material).to(head.base.device))
    check_head(model, head, material)
    return PublishedOutputs(logits=base_logits(model, material), english=english_nats(model, head, material))


@torch.no_grad()
def check_head(model: Any, head: SplitHead, material: JobInputs) -> None:
    """Raise ModelError unless hidden states and matrix alone, as the loss reads them, give the model's logits."""
    model.eval()
    inputs = parity_inputs(material).to(next(model.parameters()).device)
    hidden = model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state[0]
    found = head.factor * head(hidden).float()
    found = found if head.softcap is None else head.softcap * torch.tanh(found / head.softcap)
    wanted = base_logits(model, material).float()
    off = float((found.cpu() - wanted).norm() / wanted.norm())
    if not off < HEAD_OFF[hidden.dtype]:
        problem = f"does something to its logits that training cannot follow (they are {off:.0%} off)"
        raise ModelError(material.job.model.base, problem, "choose another base")


@torch.no_grad()
def base_logits(model: Any, material: JobInputs) -> Tensor:
    """Logits of the base tokens on a fixed stretch, [tokens, first_new_id], as the model gives them now."""
    model.eval()
    inputs = parity_inputs(material).to(next(model.parameters()).device)
    logits: Tensor = model(input_ids=inputs, use_cache=False).logits[0]
    return logits[:, : material.id_map.first_new_id].cpu()


@torch.no_grad()
def english_nats(model: Any, head: SplitHead, material: JobInputs) -> Tensor:
    """Nats of the English control's targets under a head, 0 where a window is padded. [windows, L]"""
    model.eval()
    windows, device = material.english_base, next(model.parameters()).device
    found = []
    for part in windows.parts(PARITY_AT_ONCE):
        inputs, targets = (torch.from_numpy(ids[part]).to(device) for ids in (windows.inputs, windows.targets))
        hidden = model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
        nll = blocked_cross_entropy(hidden, head, targets.flatten()).token_nll  # [w * L]
        found.append(nll.view_as(targets).cpu())
    return torch.cat(found)


def check_parity(model: Any, material: JobInputs, before: PublishedOutputs) -> None:
    """Raise ModelError unless base tokens have the same logits, to the bit, as in the model as published (G7).

    And unless English costs the same nats over the base vocabulary: that is the zero that forgetting is counted from.
    """
    after = PublishedOutputs(
        logits=base_logits(model, material),
        english=english_nats(model, model.get_output_embeddings().without_new(), material),
    )
    for what in ("logits", "english"):
        was, now = getattr(before, what), getattr(after, what)
        if not torch.equal(was, now):
            off = float((was.float() - now.float()).abs().max())
            name = "logits of base tokens" if what == "logits" else "the nats of English text"
            raise ModelError(
                material.job.model.base,
                f"adding the new rows moved {name} by up to {off:.3g}",
                "this is a fault of the program: please report it with the model's name",
            )
