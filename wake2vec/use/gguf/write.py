"""Write a trained model as one GGUF file, a stretch of one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from wake2vec.contract.errors import ModelError
from wake2vec.use.gguf.families import Array, Family, add_figures, family_of, name_in_gguf, rope_factors, turned
from wake2vec.use.gguf.words import Words
from wake2vec.use.shards import TensorToWrite

_TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """A tensor of the file."""

    name: str
    shape: tuple[int, ...]
    type: gguf.GGMLQuantizationType
    read: Callable[[], Array]  # as it stands in the file

    @property
    def size(self) -> int:
        return math.prod(gguf.quants.quant_shape_to_byte_shape(self.shape, self.type))


class GgufFile:
    """Everything is known, and whatever cannot be done refused, before the first byte is written."""

    def __init__(self, config: Any, pieces: Sequence[TensorToWrite], words: Words, kind: str) -> None:
        """Raises ModelError for a family that llama.cpp would compute otherwise."""
        self.config, self.words, self.kind = config, words, kind
        self.family = family_of(config)
        names = gguf.get_tensor_name_map(self.family.arch, config.num_hidden_layers)
        kept = [piece for piece in pieces if not piece.name.endswith(".rotary_emb.inv_freq")]  # the base says it
        self.tensors = [self._planned(piece, name_in_gguf(names, piece.name)) for piece in kept]
        if (factors := rope_factors(config)) is not None:
            whole = gguf.GGMLQuantizationType.F32
            added = _Planned(name="rope_freqs.weight", shape=factors.shape, type=whole, read=lambda: factors)
            self.tensors.append(added)

    @property
    def size(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    def write(self, path: Path, *, name: str, vocab: Path, progress: Callable[[int, int], None]) -> None:
        """`vocab`: the folder of the tokenizer."""
        with closing(gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[self.family.arch])) as writer:
            writer.add_name(name)
            writer.add_file_type(_TYPES[self.kind][1])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            add_figures(writer, self.config, len(self.words.tokens))
            self.words.add_to(writer, vocab, self.config)
            for tensor in self.tensors:
                writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, tensor.type)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            done = 0
            for tensor in self.tensors:
                writer.write_tensor_data(tensor.read())
                done += tensor.size
                progress(done, self.size)

    def _planned(self, piece: TensorToWrite, name: str) -> _Planned:
        kind = _type_of(piece, name, self.kind)
        return _Planned(
            name=name, shape=piece.shape, type=kind, read=lambda: _read(piece, kind, self.family, self.config)
        )


def _type_of(piece: TensorToWrite, name: str, kind: str) -> gguf.GGMLQuantizationType:
    """Vectors and norms are kept whole, as llama.cpp's own converter does; rows that no blocks fill are in halves."""
    if len(piece.shape) < 2 or name.endswith("_norm.weight"):
        return gguf.GGMLQuantizationType.F32
    wanted = _TYPES[kind][0]
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return gguf.GGMLQuantizationType.F16 if piece.shape[-1] % block else wanted


def _read(piece: TensorToWrite, kind: gguf.GGMLQuantizationType, family: Family, config: Any) -> Array:
    """Raises ModelError where a weight is too large for half precision."""
    stretches = []
    for values in piece.values():
        whole = values.float().numpy().reshape(-1, *piece.shape[1:])
        with np.errstate(over="ignore"):
            packed = gguf.quants.quantize(whole, kind)
        if packed.dtype == np.float16 and not np.isfinite(packed).all():
            raise ModelError(piece.name, "has weights beyond the range of half precision", "use --gguf q8_0")
        stretches.append(packed)
    return np.ascontiguousarray(turned(family, config, piece.name, np.concatenate(stretches)))
