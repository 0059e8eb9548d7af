"""The lines of hopes.md."""

from __future__ import annotations

import pytest

from wake2vec.show.hopes import Figure, Hope


@pytest.mark.parametrize(("count", "said"), [(0, "–"), (1, "1 text"), (2, "2 texts"), (2000, "2,000 texts")])
def test_what_a_figure_is_of_is_counted_in_words(count: int, said: str) -> None:
    one = Figure(hope=Hope.STYLE, key="k", name="n", value=0.5, of=count, unit="texts")

    assert one.cells()[-1] == said
