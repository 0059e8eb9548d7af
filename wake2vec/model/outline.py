"""What the files of a published model fill in it: places, shared matrices as transformers shares them, stored layouts.

Two matrices that the config calls one are one only where the files hold one of them, or the same values twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from wake2vec.contract.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Outline:
    """By the model's own names for its tensors."""

    places: Mapping[str, str]  # the tensor of the files that fills it
    ties: Mapping[str, str]  # a tensor without values of its own: the one whose values it shares
    missing: tuple[str, ...]  # parameters that nothing fills
    inputs: str  # the input matrix
    outputs: str  # the output matrix
    transposed: frozenset[str]  # weights that are published as [in, out]
    copies: frozenset[str]  # tensors of the files that repeat another
    unknown: tuple[str, ...]  # tensors of the files that the model has no place for

    @property
    def tied(self) -> bool:
        return self.ties.get(self.outputs) == self.inputs or self.ties.get(self.inputs) == self.outputs

    def file_name(self, name: str) -> str:
        """The tensor of the files behind one of the model, its own or the one that it shares; "" when there is none."""
        return self.places.get(self.ties.get(name, name), "")


def outline_of(model: Any, names: Collection[str], same: Callable[[str, str], bool]) -> Outline:
    """Of an empty model and the tensors of its files; `same` compares two of these."""
    wanted = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    places = _places(model, names)
    ties = _ties(model, places, same)
    used, copies = set(places.values()), frozenset(places[name] for name in ties if name in places)
    places = {name: place for name, place in places.items() if name not in ties}
    return Outline(
        places=places,
        ties=ties,
        missing=tuple(sorted(wanted - set(places) - set(ties))),
        inputs=_matrix(model, "input"),
        outputs=_matrix(model, "output"),
        transposed=frozenset(f"{name}.weight" for name, module in model.named_modules() if is_transposed(module)),
        copies=copies,
        unknown=tuple(sorted(set(names) - used)),
    )


def is_transposed(module: nn.Module) -> bool:
    """Whether a linear layer keeps its weight as [in, out], as GPT-2 does."""
    return type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None and hasattr(module, "nf")


def _places(model: Any, names: Collection[str]) -> dict[str, str]:
    """Where transformers would put each tensor of the files; one that it makes out of several has no place."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    own = {**model.state_dict(), **dict(model.named_parameters(remove_duplicate=False))}  # buffers too
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    places = {}
    for name in names:
        prefix = model.base_model_prefix
        found, made = rename_source_key(name, renamings, converters, prefix, own)
        if found not in own and name in own:
            found, made = rename_source_key(name, [], [], prefix, own)
        if found in own and made is None:
            places[found] = name
    return places


def _ties(model: Any, places: Mapping[str, str], same: Callable[[str, str], bool]) -> dict[str, str]:
    ties = {}
    for target, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        kept, shared = (source, target) if source in places else (target, source)
        if kept in places and (shared not in places or same(places[kept], places[shared])):
            ties[shared] = kept
    return ties


def _matrix(model: Any, side: str) -> str:
    module = getattr(model, f"get_{side}_embeddings")()
    for name, candidate in model.named_modules():
        if candidate is module and module is not None:
            return f"{name}.weight"
    tree = ", ".join(f"{name}: {type(child).__name__}" for name, child in model.named_modules() if name.count(".") < 2)
    raise ModelError(type(model).__name__, f"no {side} embedding matrix was found", f"the modules are {tree}")
