"""Load a published causal LM: built empty, filled from its safetensors one tensor at a time, quantised on the device.

Host memory holds one tensor at a time and the device never holds the unquantised model.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wake2vec.attention import register_attention
from wake2vec.errors import ModelError
from wake2vec.precision import QUANTISED, Precision, capability_of, choose_precision, make_repeatable, preflight
from wake2vec.quantise import fill_linear, is_quantised, swap_linears

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """How a model came in, for the log and for `doctor`."""

    precision: Precision
    device: str
    seconds: float
    quantised_layers: int
    device_bytes: int  # held on the device afterwards; 0 on a CPU
    device_peak_bytes: int
    host_peak_bytes: int  # of the whole process so far
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is published: a folder, or an id on the hub at a revision."""

    path: str
    revision: str = "main"
    trust_remote_code: bool = False

    def file(self, name: str) -> Path | None:
        """One file of the model on the local disk, fetched when needed; None when the model has no such file."""
        folder = Path(self.path)
        if folder.is_dir():
            return folder / name if (folder / name).is_file() else None
        from transformers.utils.hub import cached_file

        found = cached_file(self.path, name, revision=self.revision, _raise_exceptions_for_missing_entries=False)
        return None if found is None else Path(found)


def load_base(
    path_or_id: str,
    *,
    load: str = "auto",
    compute: str = "auto",
    device: torch.device | str,
    revision: str = "main",
    trust_remote_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, LoadReport]:
    """The frozen model on its device, in eval mode, and how it came there.

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
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    model, note = _load(origin, precision, place, progress or (lambda _done, _all: None))
    model.requires_grad_(False).eval()
    if precision.load == "nf4":
        model.is_loaded_in_4bit = True  # PEFT asks, to choose its own wrapper of such layers
    on_card = place.type == "cuda"
    return model, LoadReport(
        precision=precision,
        device=_device_name(place),
        seconds=time.monotonic() - start,
        quantised_layers=sum(is_quantised(module) for module in model.modules()),
        device_bytes=torch.cuda.memory_allocated(place) if on_card else 0,
        device_peak_bytes=torch.cuda.max_memory_allocated(place) if on_card else 0,
        host_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        note=note,
    )


def empty_model(config: Any, precision: Precision, *, trust_remote_code: bool = False) -> Any:
    """The model of a config without weights: parameters on `meta`, buffers real, linears already of their kind."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=precision.dtype,
            attn_implementation=register_attention(),
            trust_remote_code=trust_remote_code,
        )
    if precision.load in QUANTISED:
        swap_linears(model, precision, keep=model.get_output_embeddings())
    return model


def _load(
    origin: Origin, precision: Precision, device: torch.device, progress: Callable[[int, int], None]
) -> tuple[Any, str]:
    config = read_config(origin)
    files = _files(origin)
    if getattr(config, "quantization_config", None) is None and files:
        model = empty_model(config, precision, trust_remote_code=origin.trust_remote_code)
        if _names_fit(model, files.keys()):
            _fill(model, origin, files, precision, device, progress)
            return model, ""
    # converted names or a quantised checkpoint: transformers knows how, at the price of its own memory peak
    return _from_pretrained(origin, config, precision, device), "loaded by transformers: its tensors have other names"


def read_config(origin: Origin) -> Any:
    """Its config.json. Raises ModelError when there is none, or none that can be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            origin.path, revision=origin.revision, trust_remote_code=origin.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as exc:
        remedy = "check model.base and model.revision, and your Hugging Face login for gated models"
        raise ModelError(origin.path, f"its config cannot be read ({str(exc).splitlines()[0]})", remedy) from exc


def _files(origin: Origin) -> dict[str, str]:
    """Tensor name to safetensors file; empty when the model has none (a pickle is never read)."""
    index = origin.file(INDEX)
    if index is not None:
        table: dict[str, str] = json.loads(index.read_text())["weight_map"]
        return table
    single = origin.file(SINGLE)
    if single is None:
        return {}
    with _opened(single) as tensors:
        return dict.fromkeys(tensors.keys(), SINGLE)


def _names_fit(model: Any, names: Any) -> bool:
    """Whether the checkpoint fills every parameter of the model by its own name."""
    tied = _tied_names(model)
    wanted = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return wanted - tied <= set(names)


def _tied_names(model: Any) -> set[str]:
    if not getattr(model.config, "tie_word_embeddings", False):
        return set()
    keys = getattr(model, "_tied_weights_keys", None) or {}
    return set(keys)


def _fill(
    model: Any,
    origin: Origin,
    files: dict[str, str],
    precision: Precision,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> None:
    from accelerate.utils import set_module_tensor_to_device

    wanted = {name for name, _ in model.named_parameters(remove_duplicate=False)} - _tied_names(model)
    order = sorted(wanted, key=lambda name: (files[name], name))
    for done, (name, tensor) in enumerate(_stream(origin, files, order), start=1):
        owner, leaf = _owner(model, name)
        if leaf == "weight" and is_quantised(owner):
            require_finite(name, tensor, origin)
            fill_linear(owner, tensor, precision, device)
        else:
            value = in_own_memory(tensor, precision.dtype if tensor.is_floating_point() else tensor.dtype)
            require_finite(name, value, origin)
            set_module_tensor_to_device(model, name, device, value=value, dtype=precision.dtype)
        progress(done, len(order))
    model.tie_weights()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(
                module, name, nn.Buffer(buffer.to(device), persistent=name not in module._non_persistent_buffers_set)
            )


def in_own_memory(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy: what was read is a map of its file, and whoever writes to that file would write to a living model."""
    return tensor.to(dtype, copy=True)


def require_finite(name: str, tensor: Tensor, origin: Origin) -> None:
    """Raises ModelError for NaN and infinity, in the numbers that are computed with. Needs no memory of its own."""
    if tensor.is_floating_point() and tensor.numel():
        least, most = (float(end) for end in tensor.aminmax())
        if not (math.isfinite(least) and math.isfinite(most)):
            held = (
                "NaN" if math.isnan(least) or math.isnan(most) else f"infinity in {tensor.dtype}".replace("torch.", "")
            )
            raise ModelError(origin.path, f"its tensor {name} holds {held}", "download or convert the model again")


def _stream(origin: Origin, files: dict[str, str], names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors one after the other. Each opens its file anew, so that no more than its own pages stay mapped."""
    for name in names:
        path = origin.file(files[name])
        if path is None:
            raise ModelError(origin.path, f"{files[name]} is missing", "download the model again")
        with _opened(path) as tensors:
            yield name, tensors.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except SafetensorError as exc:
        raise ModelError(path, f"cannot be read ({exc})", "download the model again") from exc


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _from_pretrained(origin: Origin, config: Any, precision: Precision, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            origin.path,
            config=config,
            revision=origin.revision,
            trust_remote_code=origin.trust_remote_code,
            use_safetensors=True,
            dtype=precision.dtype,
            device_map={"": device},
            attn_implementation=register_attention(),
            quantization_config=_library_settings(precision),
        )
    except (OSError, ValueError) as exc:
        raise ModelError(origin.path, f"cannot be loaded ({str(exc).splitlines()[0]})", "check model.base") from exc
    for name, parameter in model.named_parameters():
        require_finite(name, parameter, origin)
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
