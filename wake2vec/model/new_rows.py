"""New-token rows in a published model: the split matrices put in place of its own, trained together or apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import ModelError
from wake2vec.model.forms import FORMS, Forms
from wake2vec.model.precision import HeldRows
from wake2vec.model.split_vocabulary import SplitEmbedding, SplitHead

RowMode = Literal["shared", "separate", "input"]
# what a model does to its logits, by the names that configs have for it; `model.check_head` proves that it is all
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
FACTORS = ("logit_scale", "lm_head_multiplier")
DIVISORS = ("logits_scaling",)


@dataclass(kw_only=True)
class InstalledRows:
    """What `install_rows` put into a model."""

    embedding: SplitEmbedding
    head: SplitHead
    mode: RowMode
    was_tied: bool
    published_rows: int  # of the published matrix, padding included

    def trainable(self) -> dict[str, nn.Parameter]:
        """The row matrices that train, by the name they have in a checkpoint."""
        names = {"shared": ("rows",), "input": ("rows.input",)}.get(self.mode, ("rows.input", "rows.output"))
        return {name: rows for name, rows in self.everything().items() if name.removesuffix(FORMS) in names}

    def words_that_train(self) -> list[str]:
        """Names of the matrices whose rows are words', and so wait for them."""
        return [name for name, rows in self.trainable().items() if rows.requires_grad and not name.endswith(FORMS)]

    def hold(self, dtype: torch.dtype, *, seed: int) -> None:
        """Hold the rows of words in 16 bits from now on; the few offsets of forms stay fp32. Raises ModelError."""
        for name, rows in self.everything().items() if dtype != torch.float32 else ():
            if not name.endswith(FORMS):
                held = HeldRows.of(rows, dtype, name=name, seed=seed)
                for side in (self.embedding, self.head):
                    side.rows = held if side.rows is rows else side.rows

    @property
    def held_in(self) -> torch.dtype:
        return self.head.rows.dtype

    def freeze(self, dtype: torch.dtype) -> None:
        """Stop training the rows, and hold those that are in fp32 in the given dtype (P2)."""
        for parameter in self.everything().values():
            parameter.requires_grad_(False)
            parameter.grad = None
            if not isinstance(parameter, HeldRows):
                parameter.data = parameter.data.to(dtype)

    def everything(self) -> dict[str, nn.Parameter]:
        """All new rows and the offsets of forms that share them, trained or not."""
        sides: dict[str, Any] = {"rows": self.embedding}
        if self.mode != "shared":
            sides = {"rows.input": self.embedding, "rows.output": self.head}
        offsets = {name + FORMS: side.forms.offsets for name, side in sides.items() if side.forms is not None}
        return {name: side.rows for name, side in sides.items()} | offsets


@dataclass(frozen=True, kw_only=True)
class SharedForms:
    """For `install_rows`: which words have which form, and where the offsets of each side begin."""

    words: Sequence[Tensor]  # of each form: rows of the words that have it
    input_offsets: Tensor  # [n_forms, d]
    output_offsets: Tensor | None = None

    def side(self, offsets: Tensor, beside: nn.Parameter) -> Forms:
        start = offsets.detach().to(beside.device, beside.dtype, copy=True)
        return Forms(len(beside), self.words, nn.Parameter(start, requires_grad=beside.requires_grad))


def resolve_mode(asked: str, *, tied: bool) -> RowMode:
    """`auto`: one row set where the model shares its matrices, two where it does not."""
    if asked == "auto":
        return "shared" if tied else "separate"
    if asked in ("shared", "separate", "input"):
        return asked  # type: ignore[return-value]
    raise ModelError("vocab.rows", f"unknown choice {asked!r}", "use auto, shared, separate or input")


def is_tied(model: Any) -> bool:
    """Whether the loaded model really shares its two matrices (the config alone is no proof)."""
    return _weight(model, "input") is _weight(model, "output")


def install_rows(
    model: Any,
    *,
    first_new_id: int,
    mode: RowMode,
    input_rows: Tensor,
    output_rows: Tensor | None = None,
    shared: SharedForms | None = None,
) -> InstalledRows:
    """Swap the split matrices into a causal LM; the published weights stay as they are, to the bit.

    `shared` uses `input_rows` on both sides. `input` freezes `output_rows`. Raises ModelError where the model's parts
    are not found, and where an id below `first_new_id` has no base row.
    """
    tied = is_tied(model)
    embedding, head = _weight(model, "input"), _weight(model, "output")
    for side, weight in (("input", embedding), ("output", head)):
        if weight.shape[0] < first_new_id:
            raise ModelError(
                f"{side} matrix of {name_of(model)}",
                f"has {weight.shape[0]} rows, but new ids start at {first_new_id}",
                "use the tokenizer that belongs to the model",
            )
    rows_in = _row_parameter(input_rows, embedding)
    if mode == "shared":
        rows_out = rows_in
    else:
        rows_out = _row_parameter(
            input_rows if output_rows is None else output_rows, head, trainable=mode == "separate"
        )
    forms_in = forms_out = None
    if shared is not None:
        forms_in = forms_out = shared.side(shared.input_offsets, rows_in)
        if mode != "shared":
            forms_out = shared.side(
                shared.input_offsets if shared.output_offsets is None else shared.output_offsets, rows_out
            )
    installed = InstalledRows(
        embedding=_split_embedding(model, embedding, first_new_id, rows_in, forms_in),
        head=_split_head(model, head, first_new_id, rows_out, forms_out),
        mode=mode,
        was_tied=tied,
        published_rows=head.shape[0],
    )
    model.set_input_embeddings(installed.embedding)
    model.set_output_embeddings(installed.head)
    model.config.vocab_size = installed.head.out_features
    # the split parts share what they must share; the library must not tie the modules as wholes
    model.config.tie_word_embeddings = False
    return installed


def published_head(model: Any, first_new_id: int) -> SplitHead:
    """The output side of a model that nothing was installed in, as the blocked loss reads it."""
    weight = _weight(model, "output")
    return _split_head(model, weight, first_new_id, nn.Parameter(weight.new_empty(0, weight.shape[1]), False))


def _split_embedding(
    model: Any, weight: Tensor, first_new_id: int, rows: nn.Parameter, forms: Forms | None
) -> SplitEmbedding:
    module = model.get_input_embeddings()
    scale = getattr(module, "embed_scale", None)  # Gemma multiplies inside its embedding
    if scale is not None and not isinstance(scale, Tensor):
        scale = torch.tensor(float(scale), device=weight.device)
    return SplitEmbedding(weight, first_new_id, rows, scale=scale, forms=forms)


def _split_head(
    model: Any, weight: Tensor, first_new_id: int, rows: nn.Parameter, forms: Forms | None = None
) -> SplitHead:
    config = model.config
    return SplitHead(
        weight,
        first_new_id,
        rows,
        bias=getattr(model.get_output_embeddings(), "bias", None),
        softcap=next((cap for key in SOFTCAPS if (cap := getattr(config, key, None))), None),
        factor=math.prod(getattr(config, key, None) or 1.0 for key in FACTORS)
        / math.prod(getattr(config, key, None) or 1.0 for key in DIVISORS),
        forms=forms,
    )


def _row_parameter(rows: Tensor, beside: Tensor, *, trainable: bool = True) -> nn.Parameter:
    if rows.ndim != 2 or rows.shape[1] != beside.shape[1]:
        raise ModelError("new rows", f"have shape {tuple(rows.shape)}, expected [n_new, {beside.shape[1]}]")
    return nn.Parameter(rows.detach().to(beside.device, torch.float32, copy=True), requires_grad=trainable)


def _weight(model: Any, side: Literal["input", "output"]) -> Tensor:
    """The published matrix of one side, or a ModelError that names what the model does have."""
    module = getattr(model, f"get_{side}_embeddings")()
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or not math.prod(weight.shape):
        tree = ", ".join(
            f"{name}: {type(child).__name__}" for name, child in model.named_modules() if name.count(".") < 2
        )
        raise ModelError(name_of(model), f"no {side} embedding matrix was found", f"the modules are {tree}")
    return weight


def name_of(model: Any) -> str:
    return getattr(model.config, "name_or_path", "") or type(model).__name__
