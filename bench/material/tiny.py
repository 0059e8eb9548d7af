"""Make a tiny language model from scratch, for tests and trials: `python -m bench.material.tiny` rewrites jobs/tiny.

A byte-level BPE and a two-layer Llama, both trained on the part of *Ulysses* that is not in jobs/tiny/corpus.txt. The
same maker gives untied and Qwen2-shaped models (matrix longer than the tokenizer) for tests.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

JOBS = Path(__file__).resolve().parents[2] / "jobs" / "tiny"
EXCERPT_CHARACTERS = 180_000
LEXICON_WORDS = 110
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ODD = (r"-", r"[à-öø-ÿ]")
_END = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A tiny model. `matrix_rows` beyond the vocabulary are padding, as Qwen has."""

    make: Literal["llama", "qwen2"] = "llama"
    vocabulary: int = 2048
    matrix_rows: int | None = None
    width: int = 64
    layers: int = 2
    tied: bool = True


def make_tokenizer(text: str, vocabulary: int) -> Any:
    """A byte-level BPE trained on a text, as a fast tokenizer of transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=_END, eos_token=_END, pad_token=_END)


def make_model(tokenizer: Any, shape: Shape, *, seed: int = 0) -> Any:
    """A model with random weights, fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[shape.make]
    end = tokenizer.convert_tokens_to_ids(_END)
    torch.manual_seed(seed)
    return model_class(
        config_class(
            vocab_size=shape.matrix_rows or len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=shape.width * 3,
            num_hidden_layers=shape.layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=shape.tied,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def train(model: Any, ids: Sequence[int], *, steps: int, batch: int = 8, length: int = 128, lr: float = 3e-3) -> float:
    """Train all weights on random windows of a token stream; the last step's loss in nats per token."""
    import torch

    torch.manual_seed(0)
    stream = torch.tensor(ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(1, steps), pct_start=0.1)
    model.train()
    value = float("nan")
    for _ in range(steps):
        starts = torch.randint(0, len(stream) - length, (batch,))
        rows = torch.stack([stream[start : start + length] for start in starts.tolist()])  # [batch, length]
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        value = float(loss.detach())
    return value


def save(model: Any, tokenizer: Any, directory: Path) -> None:
    """Weights in fp16 and the tokenizer, as a folder that transformers loads."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    model.eval().to(torch.float16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def frequent_broken_words(text: str, tokenizer: Any, count: int, *, least: int = 3) -> list[str]:
    """The words of a text that a tokenizer cuts into the most tokens in all, most costly first.

    A word that occurs fewer than `least` times is left out: its row would hardly be trained.
    """
    counts = {word: n for word, n in Counter(_WORD.findall(text)).items() if n >= least and len(word) > 2}
    known = tokenizer.get_vocab()
    encoded = tokenizer([f" {word}" for word in counts], add_special_tokens=False)["input_ids"]
    cost = {
        word: (len(ids) - 1) * counts[word]
        for word, ids in zip(counts, encoded, strict=True)
        if len(ids) > 1 and word not in known
    }
    return sorted(cost, key=lambda word: (-cost[word], word))[:count]


def _odd_words(text: str, tokenizer: Any) -> list[str]:
    """A few words with a hyphen or an accent, however rare: the kinds that tokenizers treat differently."""
    words = frequent_broken_words(text, tokenizer, len(text), least=1)
    return [word for pattern in _ODD for word in [word for word in words if re.search(pattern, word)][:8]]


def excerpt(text: str, characters: int) -> tuple[str, str]:
    """A stretch from a third into a text, cut at paragraphs, and the rest of the text."""
    start = text.index("\n\n", len(text) // 3) + 2
    end = text.index("\n\n", start + characters) + 1
    return text[start:end], text[:start] + text[end:].lstrip("\n")


def untied_laboratory(cache_dir: Path) -> tuple[Path, Path, Path]:
    """An untied Llama of 4 layers and width 128, and the text and lexicon it has not seen; minutes to make, once.

    Two thirds of *Ulysses* train the model, the other third is the text. For what no tied model can show.
    """
    from bench.material.materials import ulysses
    from bench.material.packages import build

    def make(folder: Path) -> None:
        inside, outside = excerpt(ulysses(cache_dir).read_text(encoding="utf-8"), 500_000)
        tokenizer = make_tokenizer(outside, 4096)
        model = make_model(tokenizer, Shape(vocabulary=4096, width=128, layers=4, tied=False))
        train(model, tokenizer(outside, add_special_tokens=False, verbose=False)["input_ids"], steps=500)
        save(model, tokenizer, folder / "model")
        (folder / "text.txt").write_text(inside, encoding="utf-8")
        words = frequent_broken_words(inside, tokenizer, 400)
        (folder / "lexicon.txt").write_text("\n".join(words) + "\n", encoding="utf-8")

    folder = build(cache_dir / "untied-laboratory", make)
    return folder / "model", folder / "text.txt", folder / "lexicon.txt"


def vocabulary_laboratory(cache_dir: Path, tokens: int) -> tuple[Path, Path, Path]:
    """A tied Llama of 4 layers and width 128 with so many tokens, and the text and words it has not seen.

    The words are the same whatever the vocabulary: those that cost the smallest one most.
    """
    from bench.material.materials import ulysses
    from bench.material.packages import build

    def make(folder: Path) -> None:
        inside, outside = excerpt(ulysses(cache_dir).read_text(encoding="utf-8"), 500_000)
        tokenizer = make_tokenizer(outside, tokens)
        model = make_model(tokenizer, Shape(vocabulary=tokens, width=128, layers=4))
        train(model, tokenizer(outside, add_special_tokens=False, verbose=False)["input_ids"], steps=500)
        save(model, tokenizer, folder / "model")
        (folder / "text.txt").write_text(inside, encoding="utf-8")
        words = frequent_broken_words(inside, make_tokenizer(outside, 2048), 400)
        (folder / "lexicon.txt").write_text("\n".join(words) + "\n", encoding="utf-8")

    folder = build(cache_dir / f"vocabulary-laboratory-{tokens}", make)
    return folder / "model", folder / "text.txt", folder / "lexicon.txt"


def main() -> int:
    """Rewrite jobs/tiny from *Ulysses*."""
    from bench.material.materials import default_cache, ulysses

    inside, outside = excerpt(ulysses(default_cache()).read_text(encoding="utf-8"), EXCERPT_CHARACTERS)
    shape = Shape()
    tokenizer = make_tokenizer(outside, shape.vocabulary)
    model = make_model(tokenizer, shape)
    loss = train(model, tokenizer(outside, add_special_tokens=False, verbose=False)["input_ids"], steps=400)
    save(model, tokenizer, JOBS / "model")
    (JOBS / "corpus.txt").write_text(inside, encoding="utf-8")
    frequent = frequent_broken_words(inside, tokenizer, LEXICON_WORDS)
    words = list(dict.fromkeys([*frequent, *_odd_words(inside, tokenizer)]))
    (JOBS / "lexicon.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    print(f"{JOBS}: last training loss {loss:.2f} nats per token, {len(words)} words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
