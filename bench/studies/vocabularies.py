"""Published tokenizers side by side on a word list: `python -m bench.studies.vocabularies WORDS [--text FILE]`.

How many words each knows as they are spelt, what the others cost in pieces, and how much shorter a text becomes with
a token for each. Writes bench/results/vocabularies.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.material.materials import default_cache, mistral_tokenizer, qwen3_tokenizer, smollm2_tokenizer, ulysses
from bench.publish.tables import as_markdown
from wake2vec.contract.files import write_json
from wake2vec.contract.versions import versions
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.tokens import pieces
from wake2vec.vocab.inject import inject, load_tokenizer

RESULTS = Path(__file__).resolve().parents[1] / "results"
TOKENIZERS = {"Mistral 7B v0.1": mistral_tokenizer, "SmolLM2": smollm2_tokenizer, "Qwen3": qwen3_tokenizer}


def row(name: str, folder: Path, words: tuple[str, ...], text: str) -> dict[str, Any]:
    base = load_tokenizer(folder)
    vocabulary = base.get_vocab()
    new = [word for word in words if word not in vocabulary]
    whole = pieces(new, base)
    with tempfile.TemporaryDirectory() as scratch:
        made = inject(base, words, directory=Path(scratch) / "vocabulary").tokenizer

        def length(tokenizer: Any) -> int:
            return len(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

        before, after = length(base), length(made)
    return {
        "tokenizer": name,
        "tokens": len(base),
        "known": len(words) - len(new),
        "new": len(new),
        "one_token_after_a_space": sum(len(one) == 1 for one in whole),
        "pieces_per_new_word": sum(map(len, whole)) / len(new),
        "text_tokens": [before, after],
    }


def table(result: Mapping[str, Any], part: str = "") -> list[dict[str, str]]:
    del part
    return [
        {
            "tokenizer": one["tokenizer"],
            "published tokens": f"{one['tokens']:,}",
            "words known as spelt": f"{one['known']:,}",
            "new words": f"{one['new']:,}",
            "of these one token after a space": f"{one['one_token_after_a_space']:,}",
            "pieces of a new word": f"{one['pieces_per_new_word']:.2f}",
            "text in tokens": " → ".join(f"{count:,}" for count in one["text_tokens"]),
            "shorter by": f"{1 - one['text_tokens'][1] / one['text_tokens'][0]:.1%}",
        }
        for one in result["rows"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", type=Path, help="one word a line")
    parser.add_argument("--text", type=Path, help="instead of Ulysses")
    asked = parser.parse_args()
    words = read_lexicon(asked.words).words
    text = (asked.text or ulysses(default_cache())).read_text(encoding="utf-8")
    rows = [row(name, make(default_cache()), words, text) for name, make in TOKENIZERS.items()]
    result = {
        "study": "vocabularies",
        "setting": {"words": len(words), "text": asked.text.name if asked.text else "Ulysses"},
        "rows": rows,
        "hardware": "any CPU: these are counts",
        "versions": {name: version for name, version in versions().items() if name == "tokenizers"},
        "date": time.strftime("%Y-%m-%d"),
    }
    write_json(RESULTS / "vocabularies.json", result)
    print("\n".join(as_markdown(table(result))))


if __name__ == "__main__":
    main()
