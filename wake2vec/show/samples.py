"""The sample texts of a run: eval/samples.jsonl is the record, eval/sample_generations.txt what a person reads."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from wake2vec.contract.files import counted, write_atomic
from wake2vec.contract.rundir import RunDir
from wake2vec.show.text import figure


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    """One text that the model wrote at a step."""

    step: int
    number: int
    prompt: str
    seed: int
    text: str
    tokens: int
    new_tokens: int
    ended: str = "length"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    mean_surprisal: float | None = None  # nats per token, under the model's own distribution
    overlap_words: int | None = None  # longest run of words that the corpus also holds
    overlap: str | None = None

    @property
    def words(self) -> int:
        return len(self.text.split())

    @property
    def wake_share(self) -> float | None:
        """New tokens per word. With whole-word matching each is one word of the text."""
        return self.new_tokens / self.words if self.words else None


def read_samples(run: RunDir) -> list[SampleRow]:
    """The rows there are; lines that are not whole are left out."""
    try:
        body = (run.evaluation / "samples.jsonl").read_text("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return parse_samples(_json(line) for line in body.splitlines())


def parse_samples(tables: Iterable[Any]) -> list[SampleRow]:
    """Rows from tables; what is no whole row is left out, and so are keys of a later format."""
    names = {item.name for item in fields(SampleRow)}
    rows = []
    for table in tables:
        with suppress(TypeError, AttributeError):
            rows.append(SampleRow(**{key: value for key, value in table.items() if key in names}))
    return rows


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def write_sample_rows(run: RunDir, rows: Iterable[SampleRow]) -> Path:
    """Both files, each whole; returns the readable one."""
    ordered = sorted(rows, key=lambda row: (row.step, row.number))
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in ordered]
    write_atomic(run.evaluation / "samples.jsonl", "".join(f"{line}\n" for line in lines).encode())
    readable = run.evaluation / "sample_generations.txt"
    write_atomic(readable, samples_text(ordered).encode(), durable=False)
    return readable


def samples_text(rows: Iterable[SampleRow]) -> str:
    """The texts, newest step first, each with its settings and figures."""
    blocks = [sample_text(row) for row in sorted(rows, key=lambda row: (-row.step, row.number))]
    return ("\n\n".join(blocks) or "No sample has been written yet.") + "\n"


def sample_text(row: SampleRow) -> str:
    """One text with its settings and figures."""
    settings = ", ".join(f"{key} {value}" for key, value in row.sampling.items())
    figures = [f"{row.tokens} tokens", f"{row.new_tokens} of them new words"]
    if row.wake_share is not None:
        figures.append(f"new-word share {100 * row.wake_share:.1f} % of {row.words} words")
    figures.append(f"mean surprisal {figure(row.mean_surprisal, 3)} nats per token")
    lines = [f"=== step {row.step}, sample {row.number + 1}: seed {row.seed}, {settings}", "; ".join(figures)]
    if row.overlap_words is not None:
        run_of_words = f': "{textwrap.shorten(row.overlap, 300)}"' if row.overlap else ""
        words = counted(row.overlap_words, "word")
        lines.append(f"longest run shared with the corpus: {words}{run_of_words}")
    if row.ended not in ("length", "end"):
        lines.append(f"ended early: {row.ended}")
    return "\n".join([*lines, "", row.prompt + row.text])
