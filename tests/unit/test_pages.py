"""What the pages name is there: whoever follows one from file to file finds each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTS = [ROOT / part for part in ("", "runner", "wake2vec", "docs", "tests/faults")]
NAMED = re.compile(r"`([\w.-]+(?:/[\w.*-]+)+/?|test_\w+\.py)`")
NOT_OURS = re.compile(r"^(checkpoints|eval|final|logs|runs|stores|source|refs)/")  # of a home or a run directory


def is_there(name: str) -> bool:
    if name.startswith("test_"):
        return any((ROOT / "tests").rglob(name))
    return any(list(root.glob(name.rstrip("/") + ending)) for root in ROOTS for ending in ("", ".py"))


@pytest.mark.parametrize("page", ["architecture", "adding", "guarantees"])
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    named = set(NAMED.findall((ROOT / "docs" / f"{page}.md").read_text("utf-8")))
    ours = sorted(name for name in named if not NOT_OURS.match(name))

    assert len(ours) > 5
    assert [name for name in ours if not is_there(name)] == []
