"""P2: LoRA on top of the rows that P1 trained, which stand still unless the job says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wake2vec.contract.errors import CheckpointCorrupt, InputError, ModelError, first_line
from wake2vec.contract.manifest import TRAINABLE, manifest_sha256, verify_checkpoint
from wake2vec.contract.models.targets import DEFAULT, fitting_targets, has, has_experts, named_targets
from wake2vec.contract.models.weight_files import ADAPTER_FILE, ROWS_FILE
from wake2vec.contract.order import Source
from wake2vec.contract.spec import P2Spec, P3Spec
from wake2vec.contract.tables import LoraTable
from wake2vec.model.device import copy_to_host
from wake2vec.model.dropout import StepKey, key_dropouts
from wake2vec.model.new_rows import InstalledRows, install_rows
from wake2vec.model.outline import is_transposed
from wake2vec.model.precision import DTYPES
from wake2vec.phases.base import Prepared
from wake2vec.phases.imported import overwrite, starting_rows, taken_over
from wake2vec.phases.inputs import JobInputs
from wake2vec.phases.p1 import copy_tokenizer, load_rows
from wake2vec.phases.parity import as_published, check_parity, freeze, load, matrices

ADAPTER_NAME = "default"


def prepare(material: JobInputs) -> Prepared:
    job = material.job
    assert isinstance(job, P2Spec | P3Spec), "the table of phases"
    lora = job.lora
    found = read_source(material) if material.order.source else {}  # torn rows are told before minutes of loading
    model, device, precision = load(material)
    freeze(model)
    has_rows = any(name.split(".")[0] == "rows" for name in found)
    rows_in, rows_out = load_rows(found, material.id_map) if has_rows else (taken_rows(material, model), None)
    if rows_in.shape != (material.id_map.n_new, matrices(model)[0].shape[1]):
        problem = f"its rows have shape {tuple(rows_in.shape)}, the model wants [{material.id_map.n_new}, d]"
        raise InputError(material.run.source, problem, "P2 needs the same base model as its P1")
    before = as_published(model, material)
    installed = install_rows(
        model,
        first_new_id=material.id_map.first_new_id,
        mode="shared" if rows_out is None else "separate",
        input_rows=rows_in,
        output_rows=rows_out,
    )
    # rows at rest stay as they are: a form's, which is a sum, in fp32
    installed.hold(rows_in.dtype if lora.train == "lora" else trained_in(material, found), seed=job.train.seed)
    check_parity(model, material, before)
    context = StepKey()
    adapters = adapters_of(material, model, lora, context, found)
    if lora.train == "all":
        trainable = everything(model, installed)
    else:
        parts = {"lora": adapters, "rows": installed.trainable(), "lora+rows": adapters | installed.trainable()}
        trainable = parts[lora.train]
        for parameter in adapters.values():
            parameter.requires_grad_(False)  # those that train are told so below
    if lora.train == "lora":
        installed.freeze(precision.dtype)
    for parameter in trainable.values():
        parameter.requires_grad_(True)  # PEFT freezes whatever is not its own
    stage = material.stage
    elsewhere = {name: one for name, one in trainable.items() if stage is not None and not stage.holds(name)}
    for parameter in elsewhere.values():
        parameter.requires_grad_(False)
    return Prepared(
        model=model,
        rows=installed,
        trainable={name: parameter for name, parameter in trainable.items() if name not in elsewhere},
        tensors=trainable | (adapters if lora.train == "rows" else {}),
        context=context,
        device=device,
        precision=precision,
        stage=stage,
        elsewhere=elsewhere,
    )


def trained_in(material: JobInputs, found: dict[str, Tensor]) -> torch.dtype:
    """In what rows go on: as the job that they come from held them, or as [vocab] has it where they were imported."""
    rows, vocab = found.get("rows", found.get("rows.input")), material.job.vocab
    if rows is not None:
        return rows.dtype
    return DTYPES[vocab.dtype if vocab else "fp32"]


def adapters_of(
    material: JobInputs, model: Any, lora: LoraTable, context: StepKey, found: dict[str, Tensor]
) -> dict[str, nn.Parameter]:
    """LoRA put into the model, as the job begins with it: new, or as a source or an old run left it."""
    # adapters that stand still drop nothing: rows are trained for what will be used
    still = lora.model_copy(update={"dropout": 0.0}) if lora.train == "rows" else lora
    adapters = add_lora(model, still, context, material.job.train.seed)
    taken = taken_over(material.order)
    if adapter := {name.replace(".default.weight", ""): found[name] for name in found if "lora_" in name}:
        overwrite(adapters, adapter, material.run.source)
    elif taken is not None and (adapter := taken.adapter()):
        overwrite(adapters, adapter, taken.path)
    return adapters


def read_source(material: JobInputs) -> dict[str, Tensor]:
    """Rows, and of a P2 adapters, of the checkpoint that the order names; raises InputError when it is not the one."""
    source = material.order.source
    assert source, "the runner names the source"
    found = _read_checkpoint(material, source)
    return found if source.rows is None else found | _read_checkpoint(material, source.rows)


def _read_checkpoint(material: JobInputs, source: Source) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    folder = material.run.checkpoint(source.step, source.folder)
    try:
        verify_checkpoint(folder)
        if manifest_sha256(folder) != source.manifest_sha256:
            raise CheckpointCorrupt(folder, "is not the checkpoint that this job was started from")
    except (CheckpointCorrupt, OSError) as error:
        raise InputError(folder, f"the rows of {source.job} cannot be used: {error}", "retry the job") from error
    return load_file(folder / TRAINABLE)


def taken_rows(material: JobInputs, model: Any) -> Tensor:
    """Rows of an old run, for both sides as the old runs had them."""
    base = matrices(model)[0]
    vocab = material.job.vocab
    assert vocab, "a P2 that follows no job brings a word list of its own"
    return starting_rows(material.order, vocab, material.id_map, base, material.base_tokenizer, "input")


def lora_options(table: LoraTable, targets: Sequence[str]) -> dict[str, Any]:
    return {
        "r": table.r,
        "lora_alpha": table.alpha,
        "lora_dropout": table.dropout,
        "target_modules": list(targets),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def inject_lora(model: Any, table: LoraTable) -> None:
    """Put PEFT's LoRA layers into the model in place. Raises ModelError with the layers that there are."""
    from peft import LoraConfig, inject_adapter_in_model

    linears = {name: module for name, module in model.named_modules() if is_linear(module)}
    experts = has_experts([name for name, _ in model.named_modules()])
    mapped = experts and tuple(table.targets) == DEFAULT
    there = [] if mapped else [target for target in table.targets if has(linears, target)]
    targets = there or fitting_targets(table.targets, linears, experts=experts)
    transposed = any(
        is_transposed(module) and has([name], target) for name, module in linears.items() for target in targets
    )
    config = LoraConfig(**lora_options(table, targets), fan_in_fan_out=transposed)
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER_NAME)
    except ValueError as error:
        raise ModelError("lora.targets", first_line(error), "name modules that the model has") from error


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_transposed(module)


def add_lora(model: Any, table: LoraTable, context: StepKey, seed: int) -> dict[str, nn.Parameter]:
    """Put LoRA into the model; start and dropout depend on the seed and the names alone."""
    inject_lora(model, table)
    key_dropouts(model, context, seed)
    for module in [one for name, one in model.named_modules() if "lora_" in name]:
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:  # its layer lies on another card
                setattr(module, leaf, nn.Parameter(torch.empty_like(parameter, device="cpu")))
    adapters = {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}
    generator = torch.Generator()
    with torch.no_grad():
        for place, (name, parameter) in enumerate(sorted(adapters.items())):
            parameter.data = parameter.data.float()
            generator.manual_seed(seed * 1_000_003 + place)
            if "lora_A" in name:  # as PEFT: Kaiming uniform with a = sqrt(5), that is U(-1/sqrt(in), 1/sqrt(in))
                bound = parameter.shape[1] ** -0.5
                start = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
                parameter.copy_(start)
            else:
                parameter.zero_()
            parameter.requires_grad_(True)
    return adapters


def everything(model: Any, rows: InstalledRows) -> dict[str, nn.Parameter]:
    """Every weight of an unquantised model, adapters and new rows."""
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ModelError("lora.train", "all needs an unquantised model", 'set model.load to "fp32"')
        if not any(parameter is row for row in rows.everything().values()):
            found[name] = parameter.requires_grad_(True)
    return found | rows.everything()


def export(prepared: Prepared, material: JobInputs, folder: Path) -> None:
    """A PEFT adapter folder, the rows it was trained with, the tokenizer and the id map."""
    from peft import LoraConfig, get_peft_model_state_dict

    model = prepared.model
    # Never the embedding: PEFT's default would store both full matrices again.
    state = get_peft_model_state_dict(model, adapter_name=ADAPTER_NAME, save_embedding_layers=False)
    job = material.job
    assert isinstance(job, P2Spec | P3Spec), "the table of phases"
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    targets = named_targets(job.lora.targets, adapted)
    # a layer in 4 bits is [out, in] here, whatever its published weight is
    transposed = any(getattr(model.get_submodule(name).base_layer, "was_transposed", False) for name in adapted)
    transposed = transposed or any(is_transposed(model.get_submodule(name).base_layer) for name in adapted)
    config = LoraConfig(**lora_options(job.lora, targets), inference_mode=True, fan_in_fan_out=transposed)
    config.target_modules = sorted(targets)  # PEFT's set is written in any order
    config.base_model_name_or_path = job.model.base
    # the adapter was put in place, without PEFT's wrapper; its loader looks for the names that the wrapper gives
    named = {f"base_model.model.{name}": tensor for name, tensor in sorted(state.items())}
    save_file(copy_to_host(named), folder / ADAPTER_FILE)
    config.save_pretrained(str(folder))
    save_file(copy_to_host(prepared.rows.everything()), folder / ROWS_FILE)
    if job.lora.train == "all":
        save_file(copy_to_host(prepared.tensors), folder / "weights.safetensors")
    copy_tokenizer(material, folder)
