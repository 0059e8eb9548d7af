"""The model that a config describes, without its weights: what has a place in it, and what its files fill."""

from __future__ import annotations

from typing import Any

from wake2vec.contract.errors import ModelError, first_line
from wake2vec.model.layers.attention import attention_of
from wake2vec.model.outline import Outline, outline_of
from wake2vec.model.precision import QUANTISED, Precision
from wake2vec.model.published_files import Origin, PublishedFiles
from wake2vec.model.quantise import swap_linears
from wake2vec.model.stored import without_parts


def read_config(origin: Origin) -> Any:
    """Its config.json. Raises ModelError when there is none, or none that can be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            origin.path, revision=origin.revision, trust_remote_code=origin.trust_remote_code
        )
    except Exception as exc:  # the library raises plain ones for values of a wrong kind
        remedy = "check model.base and model.revision, and your Hugging Face login for gated models"
        raise ModelError(origin.path, f"its config cannot be read ({first_line(exc)})", remedy) from exc


def empty_model(config: Any, precision: Precision, *, trust_remote_code: bool = False) -> Any:
    """The model of a config without weights: parameters on `meta`, buffers real, linears already of their kind."""
    model = bare_model(config, precision, trust_remote_code=trust_remote_code)
    if precision.load in QUANTISED:
        swap_linears(model, precision, keep=[model.get_output_embeddings()])
    return model


def bare_model(config: Any, precision: Precision, *, trust_remote_code: bool = False) -> Any:
    """The same, its linears as transformers builds them."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        return AutoModelForCausalLM.from_config(
            config,
            dtype=precision.dtype,
            attn_implementation=attention(config),
            trust_remote_code=trust_remote_code,
        )


def attention(config: Any) -> str:
    from transformers import AutoModelForCausalLM

    classes = AutoModelForCausalLM._model_mapping
    return attention_of(classes.get(type(config), None))


def read_outline(files: PublishedFiles, config: Any) -> Outline:
    """What the files of a model fill in it, without loading it."""
    trust = files.origin.trust_remote_code
    model = bare_model(config, Precision(load="fp32", compute="fp32"), trust_remote_code=trust)
    return outline_of(model, without_parts(files.names()), files.same)
