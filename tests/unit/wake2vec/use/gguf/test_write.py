"""A GGUF file holds the numbers that were trained, where its readers look for them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from wake2vec.contract.errors import ModelError

TEXT_IDS = list(range(3, 43))


def tensors_of(path):
    return {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("name", ["llama", "llama, tied", "qwen2"])
def test_another_reader_computes_what_the_export_for_transformers_does(make, name):
    made = make(name)
    ids = [*TEXT_IDS, *range(made.id_map.first_new_id, made.id_map.n_ids)]

    path = made.write("f32")

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    with torch.no_grad():
        found = model.eval()(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found, made.logits(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "share"), [("f16", 2**-11), ("q8_0", 1 / 254 + 2**-11)])
def test_smaller_types_are_off_by_half_a_step_at_most(make, kind, share):
    made = make("llama")
    whole, packed = tensors_of(made.write("f32")), tensors_of(made.write(kind))

    assert list(packed) == list(whole)
    for name, values in whole.items():
        largest = np.abs(values.reshape(-1, min(32, values.shape[-1]))).max(axis=1, keepdims=True)
        off = np.abs(packed[name] - values).reshape(largest.shape[0], -1)
        assert (off <= 1.01 * share * largest + 1e-7).all(), name


def test_vectors_stay_whole_and_rows_that_fill_no_block_are_halves(make):
    made = make("llama")
    types = {one.name: one.tensor_type.name for one in gguf.GGUFReader(made.write("q8_0")).tensors}

    assert types["output_norm.weight"] == "F32"
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 48
    assert types["blk.0.ffn_up.weight"] == "Q8_0"  # rows of 32


def test_rotations_of_llama_3_are_written_as_factors(make):
    made = make("llama, llama3")

    factors = tensors_of(made.write("f16"))["rope_freqs.weight"]

    assert factors[0] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gemma2", "models of the family gemma2"),
        ("llama, yarn", "rotary positions of the kind yarn in llama"),
        ("llama, gelu", "the activation gelu in llama"),
        ("qwen2, yarn", "rotary positions of the kind yarn in qwen2"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused_by_name(make, name, said):
    made = make(name)

    with pytest.raises(ModelError, match=said):
        made.write("f16")

    assert not list(made.folder.glob("*.gguf"))


def test_a_window_ends_the_context_that_the_file_promises(make):
    reader = gguf.GGUFReader(make("mistral, window").write("f16"))

    assert reader.fields["llama.context_length"].contents() == 16


def test_a_weight_beyond_half_precision_is_not_written_as_infinite(make):
    made = make("llama")
    large = torch.full((made.pieces[1].shape), 1e6)
    object.__setattr__(made.pieces[1], "values", lambda: iter([large]))

    with pytest.raises(ModelError, match="beyond the range of half precision"):
        made.write("f16")
