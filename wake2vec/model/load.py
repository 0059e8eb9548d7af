"""Load a published causal LM: built empty, filled from its safetensors one tensor at a time, quantised on the device.

Host memory holds one tensor at a time and the device never holds the unquantised model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.contract.errors import ModelError, first_line
from wake2vec.contract.tables import ModelTable
from wake2vec.model.bare import attention, bare_model, read_config
from wake2vec.model.outline import Outline, outline_of
from wake2vec.model.placed import check_placed, check_whole
from wake2vec.model.precision import QUANTISED, Precision, capability_of, choose_precision, make_repeatable, preflight
from wake2vec.model.published_files import Origin, PublishedFiles
from wake2vec.model.quantise import fill_linear, is_quantised, require_whole_rows, swap_linears
from wake2vec.model.stored import Packed, gathered, packed_linears, parts_of, without_parts


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """How a model came in, for the log."""

    precision: Precision
    seconds: float
    check_seconds: float  # of these, to see that every tensor lies where its file has it
    note: str = ""


def load_base(
    path_or_id: str,
    *,
    load: str = "auto",
    compute: str = "auto",
    device: torch.device | str,
    revision: str = "main",
    trust_remote_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
    holds: Callable[[str], bool] = lambda _name: True,
) -> tuple[Any, LoadReport]:
    """The frozen model on its device, in eval mode, and how it came there. Tensors that it does not hold stay empty.

    Raises NoGpu when the device cannot do what was asked, ModelError when the model cannot be found or read.
    `progress` is called with (tensors placed, tensors in all).
    """
    place = torch.device(device)
    capability = capability_of(place)
    precision = choose_precision(load, compute, device=_device_name(place), capability=capability)
    make_repeatable()
    preflight(place, precision)
    origin = Origin(path=path_or_id, revision=revision, trust_remote_code=trust_remote_code)
    start = time.monotonic()
    model, note, check_seconds = _load(origin, precision, place, progress or (lambda _done, _all: None), holds)
    model.requires_grad_(False).eval()
    if precision.load == "nf4":
        model.is_loaded_in_4bit = True  # PEFT asks, to choose its own wrapper of such layers
    seconds = time.monotonic() - start
    return model, LoadReport(precision=precision, seconds=seconds, check_seconds=check_seconds, note=note)


def load_published(
    table: ModelTable,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
    holds: Callable[[str], bool] = lambda _name: True,
) -> tuple[Any, LoadReport]:
    """The same of the model that a job names."""
    return load_base(
        table.base,
        load=table.load,
        compute=table.compute,
        device=device,
        revision=table.revision,
        trust_remote_code=table.trust_remote_code,
        progress=progress,
        holds=holds,
    )


def _load(
    origin: Origin,
    precision: Precision,
    device: torch.device,
    progress: Callable[[int, int], None],
    holds: Callable[[str], bool],
) -> tuple[Any, str, float]:
    """The model, a note, and the seconds that went into seeing that all lies where it belongs."""
    config = read_config(origin)
    files = PublishedFiles(origin)
    stored = config.__dict__.pop("quantization_config", None)  # what is stored in 4 bits is placed by us
    model = _empty(config, origin, precision)
    outline = outline_of(model, without_parts(files.names()), files.same)
    _require_fit(model, outline, files)
    if not outline.file_name(outline.inputs) or not outline.file_name(outline.outputs):
        lost = outline.outputs if outline.file_name(outline.inputs) else outline.inputs
        problem = f"its files have no {lost}, and its config does not say that the two matrices are one"
        raise ModelError(origin.path, problem, "download it again, or set tie_word_embeddings in its config.json")
    if outline.missing and not all(map(holds, outline.places)):
        problem = "its layers cannot be dealt out to several cards: its tensors have other names"
        raise ModelError(origin.path, problem, "set train.cards = 1")
    if outline.missing:
        config.__dict__ |= {} if stored is None else {"quantization_config": stored}
        # parts that transformers puts together from others: it knows how, at the price of its own memory peak
        model = _from_pretrained(origin, config, precision, device)
        return model, "loaded by transformers: its tensors have other names", 0.0
    if precision.load in QUANTISED:
        packed = packed_linears(model, outline.places, files.files)
        plain = {module for module in model.modules() if packed and module not in packed}
        swap_linears(model, precision, keep=[model.get_output_embeddings(), *plain])
        if device.type == "cpu":
            require_whole_rows(model)
    check_seconds = _fill(model, outline, files, precision, device, progress, holds)
    return model, _note(outline), check_seconds


def _empty(config: Any, origin: Origin, precision: Precision) -> Any:
    try:
        return bare_model(config, precision, trust_remote_code=origin.trust_remote_code)
    except Exception as exc:  # the library raises plain ones for values that no model can be made of
        reason = f"{type(exc).__name__}: {exc}".splitlines()[0]
        raise ModelError(origin.path, f"no model can be made of its config ({reason})", "download it again") from exc


def _require_fit(model: Any, outline: Outline, files: PublishedFiles) -> None:
    """Raise ModelError where a tensor of the files is not what the config makes of it, before any is read."""
    own = model.state_dict()
    for name, place in outline.places.items():
        if parts_of(place, files.files):
            continue
        found, wanted = files.shape(place), tuple(own[name].shape)
        if found != wanted:
            problem = f"{place} has shape {list(found)} in its files, its config makes it {list(wanted)}"
        elif own[name].is_floating_point() and not files.dtype(place).is_floating_point:
            problem = f"{place} holds whole numbers in its files ({files.dtype(place)})"
        else:
            continue
        raise ModelError(files.origin.path, problem, "download the model again: config and weights are of two models")


def _note(outline: Outline) -> str:
    if not outline.unknown:
        return ""
    few = ", ".join(outline.unknown[:3]) + (" ..." if len(outline.unknown) > 3 else "")
    return f"{len(outline.unknown)} tensors of its files belong to no part of the model: {few}"


def _fill(
    model: Any,
    outline: Outline,
    files: PublishedFiles,
    precision: Precision,
    device: torch.device,
    progress: Callable[[int, int], None],
    holds: Callable[[str], bool],
) -> float:
    """Every tensor that is held into its place, and a look at what then lies there; return the seconds of looking."""
    places, looking = outline.places, 0.0
    order = sorted(filter(holds, places), key=lambda name: (files.files[places[name]], name))
    wanted = [piece for name in order for piece in (places[name], *parts_of(places[name], files.files))]
    stream = _stream(files, wanted)
    for done, name in enumerate(order, start=1):
        tensor = gathered(stream, places[name], files.files)
        looking += _put(model, name, tensor, name in outline.transposed, precision, device)
        progress(done, len(order))
    for name, kept in outline.ties.items():
        owner, leaf = _owner(model, name)
        setattr(owner, leaf, model.get_parameter(kept))
    check_whole(model, outline, holds)
    model.config.tie_word_embeddings = outline.tied  # what the files say; nothing may tie them again by the config
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(
                module, name, nn.Buffer(buffer.to(device), persistent=name not in module._non_persistent_buffers_set)
            )
    return looking


def in_own_memory(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy: what was read is a map of its file, and whoever writes to that file would write to a living model."""
    return tensor.to(dtype, copy=True)


def require_finite(name: str, tensor: Tensor) -> None:
    """Raises ModelError for NaN and infinity. Needs no memory of its own."""
    if not tensor.is_floating_point() or not tensor.numel() or tensor.itemsize < 2:  # 8-bit floats have no order
        return
    ends = [float(end) for end in tensor.aminmax()]
    if not all(map(math.isfinite, ends)):
        held = "NaN" if any(map(math.isnan, ends)) else f"infinity in {str(tensor.dtype).removeprefix('torch.')}"
        raise ModelError(f"the model's tensor {name}", f"holds {held}", "download or convert the model again")


def _put(
    model: Any, name: str, tensor: Tensor | Packed, transposed: bool, precision: Precision, device: torch.device
) -> float:
    """One published tensor into its place; the seconds that it took to see that it lies there."""
    from accelerate.utils import set_module_tensor_to_device

    owner, leaf = _owner(model, name)
    inside = leaf == "weight" and is_quantised(owner)
    if isinstance(tensor, Packed) and not (inside and precision.load == "nf4"):
        tensor = tensor.dequantised()
    if isinstance(tensor, Packed):
        tensor.place(owner, precision.dtype, device)
    elif inside:
        tensor = tensor.to(device)  # once: it is quantised and compared there
        fill_linear(owner, tensor.t() if transposed else tensor, precision, device)
    else:
        value = in_own_memory(tensor, precision.dtype if tensor.is_floating_point() else tensor.dtype)
        require_finite(name, value)
        set_module_tensor_to_device(model, name, device, value=value, dtype=value.dtype)
    start = time.monotonic()
    check_placed(name, tensor, owner, leaf)
    return time.monotonic() - start


def _stream(files: PublishedFiles, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors one after the other. Each opens its file anew, so that no more than its own pages stay mapped."""
    for name in names:
        tensor = files.whole(name)
        require_finite(name, tensor)
        yield name, tensor


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _from_pretrained(origin: Origin, config: Any, precision: Precision, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            origin.path,
            config=config,
            revision=origin.revision,
            trust_remote_code=origin.trust_remote_code,
            use_safetensors=True,
            dtype=precision.dtype,
            device_map={"": device},
            attn_implementation=attention(config),
            quantization_config=_library_settings(precision),
            output_loading_info=True,
        )
    except (OSError, ValueError) as exc:
        raise ModelError(origin.path, f"cannot be loaded ({first_line(exc)})", "check model.base") from exc
    if found["missing_keys"]:
        problem = f"its files have no {min(found['missing_keys'])}, which transformers would make up"
        raise ModelError(origin.path, problem, "download the model again")
    for name, parameter in model.named_parameters():
        require_finite(name, parameter)
        if parameter.device.type == "cpu":
            parameter.data = in_own_memory(parameter.data, parameter.dtype)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
    return model


def _library_settings(precision: Precision) -> Any:
    from transformers import BitsAndBytesConfig

    if precision.load == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if precision.load != "nf4":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision.dtype,
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" and torch.cuda.is_available() else str(device)
