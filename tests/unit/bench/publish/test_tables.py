"""Tables of the docs come from results, each in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.publish import tables

COMMON = {"setting": {"words": 2}, "hardware": "a CPU", "versions": {"tokenizers": "1"}, "date": "2026-01-01"}


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tmp_path


def test_a_table_of_a_study_is_written_between_its_marks_and_nothing_else_is_touched(results: Path):
    row = {"tokenizer": "T", "tokens": 1000, "known": 1, "new": 1, "one_token_after_a_space": 0}
    row |= {"pieces_per_new_word": 2.5, "text_tokens": [200, 190]}
    (results / "vocabularies.json").write_text(json.dumps({"study": "vocabularies", "rows": [row], **COMMON}))
    page = "before\n<!-- vocabularies -->\nold\n<!-- end -->\nafter\n"

    once = tables.filled(page)

    assert once.startswith("before\n<!-- vocabularies -->\n| tokenizer |")
    assert "| T | 1,000 | 1 | 1 | 0 | 2.50 | 200 → 190 | 5.0% |" in once
    assert once.endswith("words 2; a CPU; tokenizers 1; 2026-01-01.\n<!-- end -->\nafter\n")
    assert tables.filled(once) == once


def test_a_part_of_a_study_has_marks_of_its_own(results: Path):
    runs = [
        {"run": "treatment", "bits_per_byte": bits, "held_out_gain": -0.01, "p": 1.0, "trained_gain": 0.2}
        for bits in (1.0, 2.0)
    ]
    (results / "p3-study.json").write_text(json.dumps({"study": "p3_study", "runs": runs, **COMMON}))

    page = tables.filled("<!-- p3-study:all -->\n<!-- end -->")

    assert page.startswith("<!-- p3-study:all -->\n| run | seeds |")
    assert "| treatment | 2 | 1.5000 | +0.200 | – | -0.010 | 1.000 / 1.000 | – |" in page
