"""Memory of a large text: split, tokenise, cache and read it, a process a size: `python -m bench.memory.corpus`.

Prints a line of JSON for each size and writes bench/results/corpus.json. The text is made of the words of jobs/tiny,
drawn at random, so that it needs no download; 1 GB takes minutes of an idle core. Counted is memory
that the process holds as its own: pages of files that it has mapped go whenever something else wants their room.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
TINY = Path(__file__).resolve().parents[2] / "jobs" / "tiny"
SEQ_LEN, BATCH, STEPS, HELD_OUT = 256, 16, 200, 0.1


def write_text(path: Path, megabytes: int) -> None:
    """Paragraphs of words of a real text, in another order every time."""
    words = (TINY / "corpus.txt").read_text(encoding="utf-8").split()
    chance, left = random.Random(7), megabytes * 1_000_000
    with path.open("w", encoding="utf-8") as file:
        while left > 0:
            paragraph = " ".join(chance.choices(words, k=120)) + "\n\n"
            left -= len(paragraph.encode())
            file.write(paragraph)


def measure(text: Path, scratch: Path) -> dict[str, float]:
    """Everything that a trainer does with its text, but for the model. Runs alone in its process."""
    from wake2vec.data.corpus import open_corpus
    from wake2vec.data.dataset import prepare
    from wake2vec.data.permutation import blocks_of_step

    tokenizer = word_tokenizer()
    watch, started = Watch(), time.monotonic()
    data = prepare(open_corpus([text]), tokenizer, seq_len=SEQ_LEN, fraction=HELD_OUT, cache_dir=scratch)
    for step in range(STEPS):
        data.blocks.batch(blocks_of_step(step, BATCH, len(data.blocks), 42))
    data.blocks.occurrences(len(tokenizer))
    return {
        "tokens": len(data.blocks) * SEQ_LEN,
        "held_out_windows": len(data.held_out.inputs),
        "before_mib": round(watch.first),
        "peak_mib": round(watch.end()),
        "seconds": round(time.monotonic() - started, 1),
    }


def word_tokenizer() -> Any:
    """A token for each word of the text: quick, so that the size of the text is what is measured."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({"?", *(TINY / "corpus.txt").read_text(encoding="utf-8").split()})
    backend = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(words)}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


class Watch:
    """The most that this process has held of its own, looked at twenty times a second."""

    def __init__(self) -> None:
        self.first = self.peak = own_mib()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.peak = max(self.peak, own_mib())

    def end(self) -> float:
        self._ended.set()
        self._thread.join()
        return self.peak


def own_mib() -> float:
    """RssAnon of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory.corpus", description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 256, 1000])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.out)))
        return 0
    rows = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as scratch:
            text = Path(scratch) / "text.txt"
            write_text(text, megabytes)
            words = [sys.executable, "-m", "bench.memory.corpus", "--one", text, "--out", Path(scratch) / "tokens"]
            done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
        rows.append({"megabytes": megabytes, **json.loads(done.stdout.splitlines()[-1])})
        print(json.dumps(rows[-1]), flush=True)
    (arguments.out / "corpus.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
